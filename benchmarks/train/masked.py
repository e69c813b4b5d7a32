"""What masks of coloured noise teach an encoder of patches beyond random ones, and what reading visible patches only saves.

    python -m benchmarks color-mae           # writes benchmarks/results/color-mae.json
    python -m benchmarks masked-speed        # writes benchmarks/results/masked-speed.json

Protocol of ``color-mae``, written before the run. A ViT of four layers and 96 channels on a grid of 12 x 12 patches (48 pixels,
patches of 4) learns from the same 2,000 scenes of the emoji world in 300 steps of 32 pictures, 75 % masked, without labels. A
linear probe (logistic regression on the vectors of whole pictures' patches) is fitted on 400 other scenes and judged by mean
intersection over union on 300 more: six concepts in every training style, one to four of them in a scene, and the background. Arms
of a seed share weights at the start, order of pictures, and scenes of the probe; five seeds, each with its own. Rate, size, steps
and concepts were chosen on seed 100 by what the random arm learnt beyond its start, before any other arm was trained.

- ``color_mae.green_gain``: mIoU of green minus random; Student's t of the paired differences. The baseline is random. The control,
  ``shuffled``, takes windows of the green field and shuffles their values: the same numbers without a spectrum.
- ``color_mae.learnt_gain``: of random minus the network before training, which says whether the probe sees learning at all.

``masked-speed``: ``masked.step_speedup`` is the time of a step with all patches in the encoder, masked ones blank, over that of a
step with visible patches only; same network, pictures, masks of 75 % and thread, in turns, median over rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from sklearn.metrics import jaccard_score

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, paired, row
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.core.numerics.spectral_noise import spectral_noise, strongest
from photopic.data.picture_set import PictureSet
from photopic.data.scene_classes import scenes_with_classes
from photopic.data.scenes import SceneOptions
from photopic.learning.patch_probe import fit_patch_probe
from photopic.models.masked_autoencoder import MaskedAutoencoder
from photopic.train.masked._common import MaskedLearner, MaskedTask, Masks
from photopic.train.masked.coloured_noise import ColouredNoiseConfig, gain_of, masks_of, window

CONCEPTS = ("bear", "red apple", "deciduous tree", "police car", "soccer ball", "pizza")
ARMS = ("random", "green", "shuffled")
FRESH = 91_000  # first seed of the probe's scenes, far from that of training
COLOR_MAE = (
    Claim("color_mae.green_gain", "low > 0", "linear probe, mIoU of scenes at equal steps: green masks minus random"),
    Claim("color_mae.learnt_gain", "", "the same: random masks minus the network before training"),
)
SPEED = (
    Claim(
        "masked.step_speedup",
        ">= 2",
        "time of a step that encodes all patches over one that encodes the visible quarter",
    ),
)


@dataclass(frozen=True)
class MaskedBench(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 300  # of each arm
    scenes: Annotated[int, Ge(2)] = 2000  # to learn from
    fitted: Annotated[int, Ge(2)] = 400  # scenes that the probe is fitted on
    judged: Annotated[int, Ge(2)] = 300  # scenes that it is judged on
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of weights, order, masks and what is judged on


@dataclass(frozen=True)
class Case:
    """One arm with one seed."""

    arm: str
    seed: int
    steps: int
    scenes: int
    fitted: int
    judged: int


def cases(config: MaskedBench) -> list[Case]:
    """Every arm with every seed, seed by seed, so that what is interrupted is paired."""
    how = (config.steps, config.scenes, config.fitted, config.judged)
    return [Case(arm, seed, *how) for seed in config.seeds for arm in ARMS]


def config_of(case: Case) -> ColouredNoiseConfig:
    """How an arm is trained."""
    colour: Any = "random" if case.arm == "random" else "green"
    return ColouredNoiseConfig(colour=colour, steps=case.steps, batch=32, augment=False, seed=case.seed)


def shuffled_masks(config: ColouredNoiseConfig) -> Masks:
    """The control: windows of the field with their values in random order."""
    field = spectral_noise((config.field, config.field), gain_of(config), np.random.default_rng((config.seed, 5)))

    def masks(count: int, rng: np.random.Generator) -> np.ndarray:
        values = np.stack([rng.permutation(window(field, config.grid, rng).ravel()) for _ in range(count)])
        return ~strongest(values, config.visible)

    return masks


def measure(bench: Bench[MaskedBench, Any], case: Case) -> dict[str, float]:
    """The probe before and after training."""
    config = config_of(case)
    images = PictureSet(f"emoji-scenes:{case.scenes}").read(config.size).numpy()
    masks = shuffled_masks(config) if case.arm == "shuffled" else masks_of(config)
    learner = MaskedLearner(images, config, MaskedTask(masks))
    before = probed(learner.model, case) if case.arm == "random" else 0.0
    filled = [learner.step(step)["filled"] for step in range(config.steps)]
    return {"before": before, "miou": probed(learner.model, case), "filled": float(np.mean(filled[-50:]))}


def probed(model: MaskedAutoencoder, case: Case) -> float:
    """The probe's mIoU on scenes that it was not fitted on."""
    options = SceneOptions(concepts=CONCEPTS, size=model.grid * model.patch, objects=(0.4, 0.4, 0.1, 0.1))
    parts = [
        scenes_with_classes(count, options, seed=FRESH + 2 * case.seed + place)
        for place, count in enumerate((case.fitted, case.judged))
    ]
    tokens = [model.tokens(images) for images, _ in parts]
    probe = fit_patch_probe(tokens[0], torch.from_numpy(parts[0][1]), 1 + len(CONCEPTS))
    said, truth = probe.predict(tokens[1], options.size).numpy(), parts[1][1]
    return float(jaccard_score(truth.ravel(), said.ravel(), average="macro"))


def color_rows(bench: Bench[MaskedBench, Any]) -> Iterator[Row]:
    """The claims of coloured noise."""

    def of(arm: str, what: str = "miou") -> np.ndarray:
        return np.array([bench.found(case)[what] for case in bench.cases if case.arm == arm])

    filled = ", ".join(f"{arm} {of(arm, 'filled').mean():.3f}" for arm in ARMS)
    note = f"error of masked patches at the end: {filled}"
    yield paired("color_mae.green_gain", of("green"), of("random"), of("shuffled"), note)
    yield paired("color_mae.learnt_gain", of("random"), of("random", "before"))


@dataclass(frozen=True)
class SpeedConfig(Config):
    """How often a step is timed."""

    rounds: Annotated[int, Ge(1)] = 21  # of one step each way
    batch: Annotated[int, Ge(1)] = 64  # pictures a step


def speed_rows(bench: Bench[SpeedConfig, Any]) -> Iterator[Row]:
    """Both ways in turns."""
    config = ColouredNoiseConfig(batch=bench.config.batch)
    images = PictureSet("emoji-scenes:256").read(config.size).numpy()
    task = MaskedTask(masks_of(config))
    learners = [MaskedLearner(images, config, each) for each in (replace(task, visible_only=False), task)]
    every, visible = side_by_side([lambda each=each: each.step(0) for each in learners], bench.config.rounds, warm_up=2)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    note = f"median {np.median(every):.3f} s and {np.median(visible):.3f} s of {bench.config.batch} pictures"
    yield row("masked.step_speedup", median_ratio(every, visible), n=bench.config.rounds, baseline=1.0, note=note)


FULL, SPEED_FULL = MaskedBench(), SpeedConfig()
BENCHMARKS = (
    Benchmark(
        "color-mae",
        __doc__,
        FULL,
        replace(FULL, steps=2, scenes=40, fitted=20, judged=10, seeds=(0,)),
        COLOR_MAE,
        color_rows,
        cases,
        measure,
        seeds=FULL.seeds,
    ),
    Benchmark("masked-speed", __doc__, SPEED_FULL, replace(SPEED_FULL, rounds=2, batch=4), SPEED, speed_rows),
)
