"""Faces of the emoji world one by one on a plain background, lying upon each other: what ``emoji-gan`` draws."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import UInt8

from photopic.data import emoji_world, scenes

SUBGROUPS = tuple(
    f"face-{kind}" for kind in "smiling affection tongue neutral-skeptical sleepy unwell glasses concerned".split()
)
STYLES = ("noto", "twemoji", "fluent-flat")


def face_sprites(split: Literal["train", "held_out"] = "train") -> list[tuple[str, str]]:
    """Concept and style of every face of a split.

    Example:
        >>> len(face_sprites("train")) > 10 * len(face_sprites("held_out")) // 2
        True
    """
    named = [item for item in emoji_world.concepts() if item.subgroup in SUBGROUPS and not item.is_variant]
    wanted = [item for item in named if (item.split == "held_out") == (split == "held_out")]
    return [(item.name, style) for item in wanted for style in STYLES if style in item.styles]


def face_plans(
    count: int, seed: int, split: Literal["train", "held_out"] = "train"
) -> list[tuple[scenes.Placement, scenes.Background, bool]]:
    """What ``emoji_faces`` draws: the face, what lies behind, and whether the picture is mirrored.

    Args:
        count: How many.
        seed: Of all of them.
        split: As ``emoji_faces`` takes it.

    Example:
        >>> face_plans(1, seed=0)[0][0].style in STYLES
        True
    """
    pool, colours, found = face_sprites(split), list(scenes.COLOURS), []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        name, style = pool[rng.integers(len(pool))]
        first, second = (colours[i] for i in rng.choice(len(colours), 2, replace=False))
        graded = rng.random() < 0.25
        background = scenes.Background(first, "gradient" if graded else "flat", second if graded else None)
        side = float(rng.uniform(0.88, 0.92))  # faces lie upon each other, as portraits of data sets of people do
        across, down = (0.5 + rng.uniform(-0.015, 0.015, 2)).tolist()
        found.append((scenes.Placement(name, style, (across, down), side), background, bool(rng.random() < 0.5)))
    return found


def emoji_faces(
    count: int, seed: int, split: Literal["train", "held_out"] = "train"
) -> UInt8[np.ndarray, "count 64 64 3"]:
    """Draw faces; picture i of a seed is the same whatever the count.

    Args:
        count: How many.
        seed: Of all of them.
        split: ``train``: faces that bundled models may know; ``held_out``: those that none has seen.

    Example:
        >>> emoji_faces(2, seed=0).shape
        (2, 64, 64, 3)
    """
    found = [
        (scenes.compose([drawn], background).image, flipped)
        for drawn, background, flipped in face_plans(count, seed, split)
    ]
    return np.stack([image[:, ::-1] if flipped else image for image, flipped in found])
