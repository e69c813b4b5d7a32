"""Pictures with the class of every pixel, to train and measure segmentation on: a folder, or scenes of the emoji world.

things/images/1.jpg   things/masks/1.png   things/classes.txt
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, UInt8
from PIL import Image

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.data import renderings
from photopic.data.folder import contents, picture_files
from photopic.data.picture_file import read_picture
from photopic.data.scene_classes import scenes_with_classes
from photopic.data.scenes import SceneOptions

SCENES = "emoji-scenes"
SEED = 69  # of the scenes, the same for everybody
COUNT = 1000  # scenes where no number is given
NAMES = ("background", "thing")  # of the classes in scenes


@dataclass(frozen=True, eq=False)
class SegmentedPictures:
    """Pictures and the class of every pixel.

    Attributes:
        images: RGB.
        masks: An index of ``names`` for each pixel.
        names: Of the classes, two or more.

    Raises:
        DataError: If there is no picture, sizes differ, or a pixel's class has no name.

    Example:
        >>> data = SegmentedPictures(np.zeros((1, 8, 8, 3), np.uint8), np.eye(8, dtype=np.uint8)[None], ("background", "bear"))
        >>> data.class_ratio
        array([0.875, 0.125])
    """

    images: UInt8[np.ndarray, "n height width 3"]
    masks: UInt8[np.ndarray, "n height width"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.images) or self.images.shape[:3] != self.masks.shape:
            raise DataError(
                f"segmented pictures: expected one or more, each with a mask of its size, found {self.images.shape} and "
                f"{self.masks.shape}"
            )
        if len(self.names) < 2 or self.masks.max() >= len(self.names):
            raise DataError(
                f"segmented pictures: expected masks of {len(self.names)} named classes, two or more, found class "
                f"{self.masks.max()}; name it too"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_ratio(self) -> Float[np.ndarray, " classes"]:
        """The share of all pixels that each class has."""
        found: np.ndarray = np.bincount(self.masks.ravel(), minlength=len(self.names)) / self.masks.size
        return found

    def digest(self) -> str:
        """Hex sha256 of pictures, masks and names."""
        return hashlib.sha256(self.images.tobytes() + self.masks.tobytes() + "\n".join(self.names).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SegmentedOptions(Config):
    """How pictures and masks are read."""

    size: Annotated[int, Ge(32)] = 64  # side in pixels of the square that a picture and its mask become
    # style of the things in emoji scenes
    style: Literal[
        "noto", "twemoji", "openmoji", "openmoji-black", "fluent-modern", "fluent-flat", "fluent-high-contrast"
    ] = "noto"


def read_segmented(word: str, options: SegmentedOptions, model: Any = None) -> SegmentedPictures:
    """The pictures and masks of a folder, or scenes of the emoji world.

    Args:
        word: A folder with ``images``, ``masks`` of the same names whose gray value or palette index is the class from 0, and
            ``classes.txt`` with a name a line; or ``emoji-scenes`` with or without a number.
        options: How to read.
        model: Not asked.

    Raises:
        DataError: If something is missing or the number is none.

    Example:
        >>> read_segmented("emoji-scenes:2", SegmentedOptions()).names
        ('background', 'thing')
    """
    kind, _, count = word.partition(":")
    if kind == SCENES:
        if count and (not count.isdigit() or int(count) < 1):
            raise DataError(f"{word}: expected {SCENES} or {SCENES}:500, found {count!r} scenes")
        return segmented_scenes(int(count or COUNT), (options.style,), size=options.size)
    folder = Path(word)
    names = tuple(filter(None, read_file(folder / "classes.txt", DataError).decode().splitlines()))
    masks = {each.stem: each for each in contents(folder / "masks")[0]}
    found, side = [], (options.size, options.size)
    for file in picture_files(folder / "images"):
        if file.stem not in masks:
            raise DataError(f"{folder}: expected a mask for {file.name}, found none in masks; add {file.stem}.png")
        picture = np.asarray(read_picture(file).resize(side, Image.Resampling.BILINEAR))
        with Image.open(masks[file.stem]) as opened:
            if opened.mode not in ("L", "P", "1"):
                raise DataError(
                    f"{masks[file.stem]}: expected a gray or palette picture of classes, found {opened.mode}"
                )
            found.append((picture, np.asarray(opened.resize(side, Image.Resampling.NEAREST)).astype(np.uint8)))
    pictures, classes = (np.stack(each) for each in zip(*found, strict=True))
    return SegmentedPictures(pictures, classes, names)


def segmented_scenes(
    count: int,
    styles: Sequence[str] = ("noto",),
    *,
    seed: int | Sequence[int] = SEED,
    size: int = 64,
    backgrounds: tuple[float, float, float] = (0.6, 0.2, 0.2),
) -> SegmentedPictures:
    """Scenes of one or two things; a pixel is of a thing or of the background.

    Args:
        count: How many.
        styles: That things are drawn in.
        seed: The same seed gives the same scenes.
        size: Side in pixels.
        backgrounds: Shares of flat ones, gradients and textures.

    Example:
        >>> segmented_scenes(2).images.shape
        (2, 64, 64, 3)
    """
    options = SceneOptions(
        concepts=renderings.classes(),
        styles=tuple(styles),
        size=size,
        objects=(0.5, 0.5, 0.0, 0.0),
        backgrounds=backgrounds,
    )
    images, concepts = scenes_with_classes(count, options, seed=seed)
    return SegmentedPictures(images, (concepts > 0).astype(np.uint8), NAMES)
