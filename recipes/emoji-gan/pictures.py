"""The pictures of emoji-gan: one face of the emoji sets on a flat or graded background."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photopic.data import emoji_world, scenes

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
SUBGROUPS = tuple(
    f"face-{kind}" for kind in "smiling affection tongue neutral-skeptical sleepy unwell glasses concerned".split()
)
STYLES = ("noto", "twemoji", "fluent-flat")


def sprites(split: str) -> list[tuple[str, str]]:
    """Faces of a split with the styles that draw them."""
    named = [item for item in emoji_world.concepts() if item.subgroup in SUBGROUPS and not item.is_variant]
    wanted = [item for item in named if (item.split == "held_out") == (split == "held_out")]
    return [(item.name, style) for item in wanted for style in STYLES if style in item.styles]


def faces(count: int, seed: int, split: str = "train") -> Tensor:
    """Pictures of seeds, uint8 (count, 3, 64, 64); half of them mirrored."""
    pool, colours, found = sprites(split), list(scenes.COLOURS), []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        name, style = pool[rng.integers(len(pool))]
        first, second = (colours[i] for i in rng.choice(len(colours), 2, replace=False))
        graded = rng.random() < 0.25
        background = scenes.Background(first, "gradient" if graded else "flat", second if graded else None)
        side = rng.uniform(0.88, 0.92)  # faces lie upon each other, as portraits of data sets of people do
        centre = tuple(0.5 + rng.uniform(-0.015, 0.015, 2))
        image = scenes.compose([scenes.Placement(name, style, centre, side)], background).image
        found.append(image[:, ::-1] if rng.random() < 0.5 else image)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def as_float(pictures: Tensor) -> Tensor:
    """-1 to 1, channels last."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
