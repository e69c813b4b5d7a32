"""Silhouettes with their skeletons, to learn from: a folder, as the Pixel SkelNetOn challenge has it too, or emoji.

    mine/shapes/1.png   mine/skeletons/1.png        shapes and skeletons, light on dark
    mine/1.png                                      both in one, as the challenge's labels: the skeleton blue, the rest white

The skeleton of an emoji is that of its clean silhouette, thinned and pruned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Bool
from PIL import Image
from scipy import ndimage

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.data.emoji_world import TILE, TRAINING_STYLES
from photopic.data.folder import picture_files
from photopic.data.picture_file import open_picture, read_picture
from photopic.data.pixels import MIDDLE, as_mask
from photopic.data.skeletons import EIGHT, Mask, prune, thin

EMOJI = "emoji-silhouettes"
COUNT = 1200  # pairs where no number is given
BLUE, WHITE = (0, 0, 255), (255, 255, 255)  # of the challenge's labels: the skeleton, and the rest of the shape
FOLDERS = (
    ("shapes", "skeletons"),
    ("img_train_shape", "img_train2"),
)  # shapes and skeletons; the challenge's own names
MARGIN = 2  # pixels that are free around a silhouette

Masks = Bool[np.ndarray, "n height width"]


@dataclass(frozen=True, kw_only=True)
class PairOptions(Config):
    """How pairs are made where there is no folder."""

    size: Annotated[int, Ge(16)] = 64  # side in pixels of emoji silhouettes; folders keep the size they have


@dataclass(frozen=True, eq=False)
class SkeletonPairs:
    """Shapes and their skeletons.

    Attributes:
        shapes: True inside.
        skeletons: True on the skeleton.
        names: Of the pictures.

    Raises:
        DataError: If there is none, sizes differ, or one has no skeleton.

    Example:
        >>> emoji_pairs(2).shapes.shape
        (2, 64, 64)
    """

    shapes: Masks
    skeletons: Masks
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.shapes) or self.shapes.shape != self.skeletons.shape:
            raise DataError(
                f"skeletons: expected one or more shapes, each with a skeleton of its size, found {self.shapes.shape} and "
                f"{self.skeletons.shape}"
            )
        if not (there := self.skeletons.any((1, 2))).all():
            raise DataError(
                f"{self.names[int((~there).argmax())]}: expected a skeleton, found an empty one; leave it out"
            )

    def __len__(self) -> int:
        return len(self.shapes)

    def digest(self) -> str:
        """Hex sha256 of shapes and skeletons."""
        parts = (np.packbits(each).tobytes() for each in (self.shapes, self.skeletons))
        return hashlib.sha256(repr(self.shapes.shape).encode() + b"".join(parts)).hexdigest()

    def part(self, places: Sequence[int]) -> SkeletonPairs:
        """Some of them."""
        return SkeletonPairs(self.shapes[places], self.skeletons[places], tuple(self.names[each] for each in places))


def silhouette(name: str, style: str, *, size: int = TILE) -> Mask | None:
    """The largest component of an emoji, its holes filled; None where nothing of it is opaque.

    Args:
        name: Of the concept.
        style: That it is drawn in.
        size: Side in pixels of the square it stands in.

    Example:
        >>> silhouette("bear", "noto").sum() > 1000
        np.True_
    """
    alpha = Image.fromarray(emoji_world.sprite(name, style)[..., 3])
    alpha = alpha.resize((size - 2 * MARGIN,) * 2, Image.Resampling.BICUBIC)
    labels, count = ndimage.label(np.asarray(alpha) > MIDDLE, EIGHT)
    if not count:
        return None
    largest = np.bincount(labels.ravel())[1:].argmax() + 1
    found: Mask = np.pad(ndimage.binary_fill_holes(labels == largest), MARGIN)
    return found


def noisy_boundary(mask: Mask, share: float, rng: np.random.Generator) -> Mask:
    """A shape with some of the pixels on either side of its border turned over.

    Args:
        mask: The shape.
        share: Of these pixels that are turned over, 0 to 1.
        rng: Draws them.

    Example:
        >>> noisy_boundary(np.eye(9, dtype=bool), 0.0, np.random.default_rng(0)).sum()
        np.int64(9)
    """
    border = ndimage.binary_dilation(mask) ^ ndimage.binary_erosion(mask)  # over four neighbours
    found: Mask = mask ^ (border & (rng.random(mask.shape) < share))
    return found


def emoji_pairs(
    count: int,
    *,
    split: str = "train",
    styles: Sequence[str] = TRAINING_STYLES,
    size: int = TILE,
    seed: int = 0,
) -> SkeletonPairs:
    """Silhouettes of emoji with their pruned skeletons, groups of emoji mixed.

    Args:
        count: How many; fewer where there are no more.
        split: Of concepts: train, known or held_out.
        styles: Each silhouette is of one of them.
        size: Side in pixels.
        seed: Of the choice.
    """
    drawn = [(each.name, style) for each in emoji_world.select(split=split) for style in styles if style in each.styles]
    shapes: list[Mask] = []
    names: list[str] = []
    for place in np.random.default_rng((seed, 21)).permutation(len(drawn)).tolist():
        if len(shapes) == count:
            break
        if (found := silhouette(*drawn[place], size=size)) is not None:
            shapes.append(found)
            names.append("/".join(drawn[place]))
    skeletons = [prune(thin(each), each) for each in shapes]
    return SkeletonPairs(np.stack(shapes), np.stack(skeletons), tuple(names))


def read_pairs(word: str, options: PairOptions, model: Any = None) -> SkeletonPairs:
    """The pairs of a folder, or of emoji.

    Args:
        word: A folder, see the module; or ``emoji-silhouettes`` with or without a number.
        options: How large those are.
        model: Not asked.

    Raises:
        DataError: If something is missing, sizes differ, or the number is none.

    Example:
        >>> len(read_pairs("emoji-silhouettes:2", PairOptions()))
        2
    """
    kind, _, count = word.partition(":")
    if kind == EMOJI:
        if count and (not count.isdigit() or int(count) < 1):
            raise DataError(f"{word}: expected {EMOJI} or {EMOJI}:500, found {count!r} silhouettes")
        return emoji_pairs(int(count or COUNT), size=options.size)
    folder = Path(word)
    inner = next((names for names in FOLDERS if all((folder / name).is_dir() for name in names)), None)
    if inner is None:
        files = picture_files(folder)
        return _stacked([*map(read_label, files)], files)
    shapes, skeletons = (picture_files(folder / name) for name in inner)
    called = {each.stem: each for each in skeletons}
    if lost := [each.name for each in shapes if each.stem not in called]:
        raise DataError(f"{folder}: expected a skeleton for {lost[0]}, found none in {inner[1]}; add it")
    found = [(as_mask(open_picture(each), each), as_mask(open_picture(called[each.stem]), each)) for each in shapes]
    return _stacked(found, shapes)


def read_label(file: Path) -> tuple[Mask, Mask]:
    """Shape and skeleton of one label of the challenge: only exact blue is skeleton, that and exact white the shape.

    Raises:
        DataError: If the file is no picture.
    """
    pixels = np.asarray(read_picture(file))
    skeleton = (pixels == BLUE).all(2)
    return skeleton | (pixels == WHITE).all(2), skeleton


def _stacked(found: Sequence[tuple[np.ndarray, np.ndarray]], files: Sequence[Path]) -> SkeletonPairs:
    """Pairs of one size.

    Raises:
        DataError: If sizes differ.
    """
    first = found[0][0].shape
    for masks, file in zip(found, files, strict=True):
        for each in masks:
            if each.shape != first:
                raise DataError(f"{file}: expected {first[1]} x {first[0]} pixels as {files[0].name}, found "
                                f"{each.shape[1]} x {each.shape[0]}; save all at one size")  # fmt: skip
    shapes, skeletons = (np.stack(each) for each in zip(*found, strict=True))
    return SkeletonPairs(shapes, skeletons, tuple(each.stem for each in files))
