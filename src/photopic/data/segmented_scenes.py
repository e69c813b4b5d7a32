"""Scenes of the emoji world with the class of every pixel, to fit and judge segmentation on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from photopic.data import emoji_world
from photopic.data.scenes import Scene, SceneOptions, sample_scene

BACKGROUND = "background"  # class 0


@dataclass(frozen=True, eq=False)
class SegmentedPictures:
    """Pictures and the class of each pixel.

    Attributes:
        images: RGB.
        labels: Indices of ``names``.
        names: Of the classes, the background first.
    """

    images: UInt8[np.ndarray, "n size size 3"]
    labels: Int64[np.ndarray, "n size size"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def group_of(concept: str) -> str:
    """The Unicode group of a concept, such as ``animals-nature``."""
    return emoji_world.concept(concept).group


def segmented_scenes(
    count: int, options: SceneOptions, *, seed: int, class_of: Callable[[str], str] = group_of
) -> SegmentedPictures:
    """Draw scenes; a pixel has the class of the thing that it shows.

    Args:
        count: How many.
        options: What they are drawn from.
        seed: The same seed gives the same scenes.
        class_of: From the name of a concept to that of its class; ``str`` makes each concept its own.

    Example:
        >>> found = segmented_scenes(2, SceneOptions(concepts=("cat", "pizza"), size=32), seed=0, class_of=str)
        >>> found.names, found.labels.shape
        (('background', 'cat', 'pizza'), (2, 32, 32))
    """
    names = (BACKGROUND, *sorted({class_of(name) for name in options.concepts}))
    scenes = [sample_scene(options, (seed, number)) for number in range(count)]
    labels = np.stack([_classes(scene, names, class_of) for scene in scenes])
    return SegmentedPictures(np.stack([scene.image for scene in scenes]), labels, names)


def _classes(scene: Scene, names: tuple[str, ...], class_of: Callable[[str], str]) -> Int64[np.ndarray, "size size"]:
    found = np.zeros(scene.masks.shape[1:], np.int64)
    for item, mask in zip(scene.placements, scene.masks, strict=True):  # masks are of visible pixels: no two meet
        found[mask] = names.index(class_of(item.concept))
    return found
