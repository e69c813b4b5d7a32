"""Conditions that a user painted or made elsewhere: a drawing, a map of objects, a depth map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from photopic.core.errors import DataError
from photopic.data.extraction import LUMA, MOST, intensity
from photopic.data.folder import load_picture
from photopic.data.picture_file import read_picture

GREYS = (64, 191)  # what lies between is a mid-grey
PHOTO = 0.4  # share of mid-greys of what is no drawing
CHROMA = 8  # bytes between the channels of a picture that still counts as grey


def read_sketch(path: str | Path, size: int, *, inverted: bool = False) -> UInt8[np.ndarray, "1 size size"]:
    """A drawing of dark lines on light ground, as a sketch.

    Args:
        path: The picture.
        size: Side in pixels of the result.
        inverted: Whether the lines are light on dark ground.

    Raises:
        DataError: If it is a photo (more than 40 % mid-greys), or its ground is not what was said.

    Example:
        >>> read_sketch("lines.png", 64).shape  # doctest: +SKIP
        (1, 64, 64)
    """
    grey = intensity(load_picture(path, size), LUMA)
    share = float(((grey > GREYS[0]) & (grey < GREYS[1])).mean())
    if share > PHOTO:
        raise DataError(
            f"{path}: expected a drawing of lines, found a picture with {share:.0%} mid-greys; give it as the picture, whose "
            "sketch is taken"
        )
    if (grey.mean() < 128) != inverted:
        kinds = ("dark lines on light ground", "light lines on dark ground")
        fix = "leave out --invert-sketch" if inverted else "add --invert-sketch"
        raise DataError(f"{path}: expected {kinds[inverted]}, found {kinds[not inverted]}; {fix}")
    return grey if inverted else 255 - grey


def read_objects(path: str | Path, size: int) -> list[Bool[np.ndarray, "size size"]]:
    """Objects painted in greys on black: darker ones were drawn first.

    Raises:
        DataError: If there is none, or there are more than four; paint without soft edges.
    """
    whole = np.asarray(read_picture(path)).max(-1)  # (h, w)
    side = min(whole.shape)
    top, left = ((length - side) // 2 for length in whole.shape)
    places = ((np.arange(size) + 0.5) * side / size).astype(int)  # nearest pixels: greys between two would be objects
    grey = whole[top + places[:, None], left + places]
    kept = [int(value) for value in np.unique(grey) if value]
    if not 1 <= len(kept) <= MOST:
        raise DataError(
            f"{path}: expected one to {MOST} objects painted in greys on black, found {len(kept)}; paint flat areas"
        )
    return [grey == value for value in kept]


def read_depth(path: str | Path, size: int) -> UInt8[np.ndarray, "1 size size"]:
    """A depth map, light where it is near."""
    return intensity(load_picture(path, size), LUMA)


def is_grey(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a picture has no colours.

    Example:
        >>> is_grey(np.full((2, 2, 3), 90, np.uint8))
        True
    """
    return bool((image.max(-1).astype(int) - image.min(-1)).max() <= CHROMA)
