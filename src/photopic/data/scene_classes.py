"""Scenes of the emoji world with the concept of every pixel, for probes of what an encoder knows where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from photopic.data.scenes import SceneOptions, sample_scene


def scenes_with_classes(
    count: int, options: SceneOptions, *, seed: int | Sequence[int]
) -> tuple[UInt8[np.ndarray, "n size size 3"], Int64[np.ndarray, "n size size"]]:
    """Draw scenes, and tell what each pixel shows.

    Args:
        count: How many.
        options: What they are drawn from.
        seed: The same seed gives the same scenes.

    Returns:
        The pictures, and of each pixel the place of its concept in ``options.concepts`` from 1; 0 is the background.

    Example:
        >>> images, labels = scenes_with_classes(2, SceneOptions(concepts=("cat", "pizza"), size=32), seed=0)
        >>> images.shape, np.unique(labels).tolist()
        ((2, 32, 32, 3), [0, 1, 2])
    """
    base = (seed,) if isinstance(seed, int) else tuple(seed)
    scenes = [sample_scene(options, (*base, number)) for number in range(count)]
    labels = np.zeros((count, options.size, options.size), np.int64)
    for place, scene in enumerate(scenes):
        for item, mask in zip(scene.placements, scene.masks, strict=True):  # of visible pixels: no two meet
            labels[place][mask] = options.concepts.index(item.concept) + 1
    return np.stack([scene.image for scene in scenes]), labels
