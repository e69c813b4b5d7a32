"""What the stages of the emoji-diffusion-128 recipe share: the scenes they see, and where they read and write."""

from __future__ import annotations

import sys
from pathlib import Path

from photopic.data import emoji_world
from photopic.data.scenes import SceneOptions

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # recipes/, which holds _common
RUNS = HERE.parents[1] / "runs" / "emoji-diffusion-128"
LANDED = HERE / "checkpoint"  # half precision, committed: where a fresh checkout goes on from
FIRST_EDITION = HERE.parents[1] / "src" / "photopic" / "models" / "bundled" / "emoji-diffusion"
STYLES = ("noto", "twemoji")  # the styles the model learns to draw
OBJECTS = {
    64: (1.0, 0.0, 0.0, 0.0),
    128: (0.2, 0.25, 0.25, 0.3),
}  # chances of one to four things in what the denoiser draws
SIDES = {128: (24 / 128, 96 / 128), 64: (32 / 64, 61 / 64)}  # of things, as shares of the picture, by its size

KNOWN = tuple(item.name for item in emoji_world.select(split="known"))
TRAINABLE = tuple(item.name for item in emoji_world.concepts() if item.split != "held_out")


def known_scenes(size: int = 128, objects: tuple[float, float, float, float] = (0.1, 0.2, 0.3, 0.4)) -> SceneOptions:
    """What the denoiser draws: the known concepts in two styles."""
    return SceneOptions(
        concepts=KNOWN,
        styles=STYLES,
        size=size,
        objects=objects,
        backgrounds=(0.7, 0.15, 0.15),
        tinted=0.04,
        repeated=0.1,
        sides=SIDES[size],
    )


def all_scenes(size: int = 128, objects: tuple[float, float, float, float] = (0.1, 0.2, 0.3, 0.4)) -> SceneOptions:
    """What the autoencoder sees besides: every concept and style that is not held out, so that it serves novel subjects."""
    return SceneOptions(
        concepts=TRAINABLE,
        styles=emoji_world.TRAINING_STYLES,
        size=size,
        objects=objects,
        backgrounds=(0.5, 0.25, 0.25),
        tinted=0.1,
        sides=None
        if size == 128
        else SIDES[size],  # at 128 px the larger ones of the usual layouts: more to learn from
    )


def scenes_of_four(split: str = "known", size: int = 128) -> SceneOptions:
    """What the autoencoder is judged by: four things of 49 to 56 pixels; seeds (99, k) are of no training scene."""
    concepts = tuple(item.name for item in emoji_world.select(split=split))
    return SceneOptions(concepts=concepts, styles=STYLES, size=size, objects=(0.0, 0.0, 0.0, 1.0))
