"""Where objects may be in a picture: what stands out from the background of a scene, or whatever a detector finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, UInt8
from PIL import Image
from scipy import ndimage

from photopic.core.errors import DataError
from photopic.data.scenes import COLOURS, TEXTURES, Background, render_background
from photopic.knowledge.bag_of_concepts import Box
from photopic.metrics.layout import CONTRAST, SPECK

GRID = 64  # pixels at which backgrounds are compared
RIM = 2  # pixels of that around a picture in which its background shows
PLAIN = 12  # of 255 in any channel: a pixel of the background differs by no more
AROUND = np.ones((3, 3), bool)  # parts that touch at corners hang together


@dataclass(frozen=True, eq=False)
class Candidate:
    """One place where an object may be.

    Attributes:
        box: (left, top, right, bottom) in pixels, right and bottom exclusive.
        mask: Its pixels; None: the whole box.
        name: The class a detector was asked for; None where it was asked for none.
    """

    box: Box
    mask: Bool[np.ndarray, "height width"] | None = None
    name: str | None = None

    def pixels(self, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """The mask, or the box as one."""
        if self.mask is not None:
            return self.mask
        filled = np.zeros((height, width), bool)
        left, top, right, bottom = self.box
        filled[top:bottom, left:right] = True
        return filled


Detector = Callable[[UInt8[np.ndarray, "height width 3"], Sequence[str]], Sequence[Candidate]]
"""Finds candidates in a picture, given the names of the classes asked for."""


def components(image: UInt8[np.ndarray, "height width 3"], names: Sequence[str] = ()) -> list[Candidate]:
    """The connected parts of |picture - background| of a scene of the emoji world, larger ones first; a ``Detector``.

    Args:
        image: RGB, 0 to 255.
        names: Not asked: a part of any class is found.

    Raises:
        DataError: If the picture has no plain background.

    Example:
        >>> from photopic.data.scenes import Background, Placement, compose
        >>> scene = compose([Placement("owl", "noto", (0.5, 0.5), 0.5)], Background("red", "striped"))
        >>> scene.boxes[0].astype(int).tolist(), [found.box for found in components(scene.image)]
        ([21, 18, 43, 47], [(21, 18, 43, 47)])
    """
    height, width = image.shape[:2]
    ground = _enlarged(estimated_background(image), height, width)
    apart = np.abs(image.astype(np.int16) - ground).max(-1) > CONTRAST  # (h, w)
    gap = max(1, round(min(height, width) / GRID))
    # parts of one drawing lie closer to each other than two drawings do: bridge gaps of two such widths
    labels, count = ndimage.label(ndimage.binary_dilation(apart, AROUND, iterations=gap), AROUND)
    masks = [apart & (labels == number) for number in range(1, count + 1)]
    found = [Candidate(_box(mask), mask) for mask in masks if mask.sum() >= SPECK * mask.size]
    return sorted(found, key=lambda each: -int(each.pixels(height, width).sum()))


def finder_of(word: str, device: Any = "cpu") -> Detector:
    """``components``, or the zero-shot detector in a folder, which is asked for one class after the other.

    Raises:
        ModelError: If the folder holds no such detector.
    """
    if word == "components":
        return components
    from photopic.models.zero_shot_detector import ZeroShotDetector

    detector = ZeroShotDetector.load(word, device)

    def find(image: UInt8[np.ndarray, "height width 3"], names: Sequence[str]) -> list[Candidate]:
        found = [(name, box) for name in dict.fromkeys(names) for box in detector.boxes(image, name)[0]]
        whole = [(name, (int(b[0]), int(b[1]), math.ceil(b[2]), math.ceil(b[3]))) for name, b in found]
        return [Candidate(box, None, name) for name, box in whole if box[0] < box[2] and box[1] < box[3]]

    return find


def estimated_background(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """The background of the emoji world, or the one colour, that fits a picture best.

    Raises:
        DataError: If none fits.
    """
    small = np.asarray(Image.fromarray(image).resize((GRID, GRID), Image.Resampling.BOX)).astype(np.int16)
    rim = np.ones((GRID, GRID), bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    own = np.broadcast_to(np.median(small[rim], 0).astype(np.uint8), (1, GRID, GRID, 3))  # a colour that has no name
    known = np.concatenate([_backgrounds(), own])  # (backgrounds, 64, 64, 3)
    fits = np.abs(known.astype(np.int16) - small).max(-1) <= PLAIN  # (backgrounds, 64, 64)
    # over the whole picture, since dots do not reach the rim; objects hide the same pixels of all backgrounds
    best = int(fits.mean((1, 2)).argmax())
    if fits[best][rim].mean() < 0.5:  # half, since objects may reach into the rim
        raise DataError(
            f"picture: expected a plain background, flat, graded or textured, found none that fits more than "
            f"{fits[best][rim].mean():.0%} of its rim; give a detector, such as a folder with an OWL-ViT"
        )
    return np.asarray(known[best])


@cache
def _backgrounds() -> UInt8[np.ndarray, "backgrounds 64 64 3"]:
    """Every background of the emoji world."""
    flat = [Background(colour, kind) for colour in COLOURS for kind in ("flat", *TEXTURES)]
    graded = [Background(top, "gradient", end) for top in COLOURS for end in COLOURS if top != end]
    return np.stack([(render_background(each, GRID) * 255 + 0.5).astype(np.uint8) for each in (*flat, *graded)])


def _enlarged(small: UInt8[np.ndarray, "64 64 3"], height: int, width: int) -> Int16[np.ndarray, "height width 3"]:
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST), np.int16)


def _box(mask: Bool[np.ndarray, "height width"]) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
