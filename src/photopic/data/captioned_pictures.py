"""Pictures that all have captions, to train a dual encoder on: a folder, or scenes of the emoji world."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from photopic.core.errors import DataError
from photopic.data import renderings
from photopic.data.folder import load_folder
from photopic.data.pixels import to_pixels
from photopic.data.scenes import Scene, SceneOptions, sample_scene

SCENES = "emoji-scenes"
SEED = 68  # of the scenes, the same for everybody
COUNT = 4000  # scenes where no number is given


@dataclass(frozen=True, eq=False)
class CaptionedPictures:
    """Pictures and one caption each.

    Attributes:
        images: RGB.
        captions: As many.

    Raises:
        DataError: If there are fewer than two.

    Example:
        >>> data = CaptionedPictures(np.zeros((2, 8, 8, 3), np.uint8), ("a bear", "a cat"))
        >>> len(data)
        2
    """

    images: UInt8[np.ndarray, "n height width 3"]
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.captions) < 2 or len(self.captions) != len(self.images):
            raise DataError(
                f"captioned pictures: expected two or more, each with a caption, found {len(self.images)} pictures "
                f"and {len(self.captions)} captions"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def digest(self) -> str:
        """Hex sha256 of pictures and captions."""
        return hashlib.sha256(self.images.tobytes() + "\n".join(self.captions).encode()).hexdigest()


def read_captioned_pictures(word: str, size: int) -> CaptionedPictures:
    """The captioned pictures of a folder, or scenes of one or two things, half of them tinted.

    Args:
        word: A folder, whose captions lie beside its pictures; or ``emoji-scenes`` with or without a number.
        size: Side in pixels of the square that a folder's pictures become.

    Raises:
        DataError: If there are fewer than two pictures, one lacks a caption, or the number is none.

    Example:
        >>> read_captioned_pictures("emoji-scenes:2", 64).captions[0]
        'a warning above a repeat single button on a red background'
    """
    kind, _, count = word.partition(":")
    if kind == SCENES:
        if count and (not count.isdigit() or int(count) < 2):
            raise DataError(f"{word}: expected {SCENES} or {SCENES}:5000, two or more, found {count!r} scenes")
        return captioned_scenes(int(count or COUNT))
    found = load_folder(word, size)
    for name, caption in zip(found.names, found.captions, strict=True):
        if caption is None:
            raise DataError(f"{word}: {name} has no caption; put one beside it in a text file of the same name")
    return CaptionedPictures(to_pixels(found.images), tuple(caption or "" for caption in found.captions))


def captioned_scenes(count: int, *, seed: int = SEED, tinted: float = 0.5) -> CaptionedPictures:
    """Scenes of one (30 %) or two things, without the pairs of concept and style that are held out.

    Args:
        count: How many.
        seed: The same seed gives the same scenes.
        tinted: Share of things that are tinted, which the caption says.

    Example:
        >>> captioned_scenes(2).images.shape
        (2, 64, 64, 3)
    """
    options = SceneOptions(concepts=renderings.classes(), objects=(0.3, 0.7, 0.0, 0.0), style_named=0.2, tinted=tinted)
    held_out, attempt = set(renderings.held_out_pairs()), 0
    found: list[Scene] = []
    while len(found) < count:
        scene = sample_scene(options, (seed, attempt))
        attempt += 1
        if not any((item.concept, item.style) in held_out for item in scene.placements):
            found.append(scene)
    return CaptionedPictures(np.stack([each.image for each in found]), tuple(each.caption for each in found))
