"""What the stages of the emoji-diffusion recipe share: the scenes they see, and where they write."""

from __future__ import annotations

import sys
from pathlib import Path

from photopic.data import emoji_world
from photopic.data.scenes import SceneOptions

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
RUNS = Path(__file__).parents[2] / "runs" / "emoji-diffusion"
MODEL = Path(__file__).parents[2] / "src" / "photopic" / "models" / "bundled" / "emoji-diffusion"
STYLES = ("noto", "twemoji")  # the styles the model learns to draw

KNOWN = tuple(item.name for item in emoji_world.select(split="known"))

# The text-to-image scenes. Two objects in half of them: they are small, and which is where has to be learnt too.
KNOWN_SCENES = SceneOptions(
    concepts=KNOWN,
    styles=STYLES,
    objects=(0.5, 0.5, 0.0, 0.0),
    backgrounds=(0.7, 0.15, 0.15),
    style_named=0.5,
    tinted=0.04,
)
# What the autoencoder sees: every concept and style that is not held out, so that it serves novel subjects too.
ALL_TRAINING_SCENES = SceneOptions(
    concepts=tuple(item.name for item in emoji_world.concepts() if item.split != "held_out"),
    styles=emoji_world.TRAINING_STYLES,
    backgrounds=(0.5, 0.25, 0.25),
    tinted=0.1,
)
