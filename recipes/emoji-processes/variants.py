"""What `train.py` trains: one baseline and processes that differ from it in one thing each; and what all of them learn from."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from photopic.data import renderings, scenes
from photopic.models.diffusion import Diffusion, Schedule
from photopic.models.diffusion.dimensionality import DimensionalityConfig, dimensionality_varying
from photopic.models.diffusion.shared_timesteps import SharedTimestepsConfig, shared
from photopic.train.diffusion.training import TrainingConfig

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
CHANNELS = (16, 32, 64)  # of the network, the same for every process and size
TURNING = (300, 600)
TRAINING, HELD_OUT = 5_000, 2_000  # scenes
CONCEPTS = renderings.classes()[::64]  # twenty things
BASELINE = TrainingConfig(steps=3_000, batch=8, learning_rate=1e-3, warmup=100, ema=0.998)
LARGE = replace(BASELINE, steps=800)
RETROFIT = replace(BASELINE, steps=300, timesteps=(0, 100))


@dataclass(frozen=True)
class Variant:
    """One kind of run.

    Attributes:
        process: What is trained.
        about: One line for the card.
        config: How; its seed is that of the run.
        size: Side of the pictures.
        start: Kind of run with the same seed whose weights it starts from; None: random ones.
    """

    process: Diffusion
    about: str
    config: TrainingConfig = BASELINE
    size: int = 64
    start: str | None = None


PLAIN = Diffusion(Schedule.of_kind("linear"))
FADING = dimensionality_varying(PLAIN.schedule, DimensionalityConfig(TURNING))
STEADY = dimensionality_varying(PLAIN.schedule, DimensionalityConfig(TURNING, lowest=1.0))
SHARED = shared(PLAIN, SharedTimestepsConfig(100, 5))
VARIANTS = {
    "plain": Variant(PLAIN, "the baseline: linear schedule, 1,000 timesteps, noise prediction"),
    "varying": Variant(FADING, "fewer pixels after timesteps 300 and 600, details fade to 0.01"),
    "steady": Variant(STEADY, "the same without fading"),
    "shared": Variant(SHARED, "timesteps below 100 share five times"),
    "plain-128": Variant(PLAIN, "the baseline at 128 pixels", LARGE, 128),
    "varying-128": Variant(FADING, "fewer pixels at 128 pixels", LARGE, 128),
    "retrofit": Variant(SHARED, "the baseline, then shared times, timesteps below 100 alone", RETROFIT, 64, "plain"),
    "continued": Variant(
        PLAIN, "the baseline, then timesteps below 100 alone: control of retrofit", RETROFIT, 64, "plain"
    ),
}


@cache
def pictures(size: int, held_out: bool = False) -> UInt8[Tensor, "n size size 3"]:
    """Scenes of one thing each; those held out have other seeds."""
    options = scenes.SceneOptions(concepts=CONCEPTS, objects=(1.0, 0.0, 0.0, 0.0), size=size)
    stream, count = (68, HELD_OUT) if held_out else (67, TRAINING)
    return torch.from_numpy(np.stack([scenes.sample_scene(options, (stream, each)).image for each in range(count)]))
