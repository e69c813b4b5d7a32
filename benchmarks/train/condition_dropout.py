"""How conditions are dropped while a model learns to read them: is intensity better dropped in 0.7 or in 0.5 of pictures?

    python -m benchmarks condition-dropout        # writes benchmarks/results/condition-dropout.json

Protocol, written before the run. The adapter of ``train conditions`` over ``emoji-diffusion``, 200 steps of 16 of 1,000 scenes,
seeds 0, 1 and 2, paired over seeds; nothing was chosen. Judged by the loss on 96 scenes that no training saw, at fixed noise and
timesteps, under no condition, under intensity alone, under all but intensity, under all; captions, which the base reads, are left
out. Control: as with 0.7, but each picture has the conditions of another, so that none may help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, paired
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.core.fit import fit
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import EIGHT
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.handle import TextToImage
from photopic.train.diffusion.conditions import Bank, ConditionLearner, ConditionsConfig, _bank, fresh_adapter

JUDGED, FRESH = 96, 50_000  # scenes; the number of the first
WAYS = {"often": {"drop_intensity": 0.7}, "half": {"drop_intensity": 0.5}, "shuffled": {"shuffle": True}}
LEARNT = tuple(name for name in EIGHT if name != "caption")
SUBSETS = {"none": (), "intensity": ("intensity",), "others": tuple(set(LEARNT) - {"intensity"}), "all": LEARNT}
CLAIMS = (
    Claim("condition_dropout.intensity", "", "loss under intensity alone: dropped in 0.5 less in 0.7 of pictures"),
    Claim("condition_dropout.others", "", "the same under all but intensity"),
    Claim("condition_dropout.all", "", "the same under all"),
    Claim("condition_dropout.gain", "low > 0", "0.7: loss under none less under all; control: shuffled in training"),
    Claim("condition_dropout.gain_*", "", "the same under intensity alone, and under all but intensity"),
)


@dataclass(frozen=True)
class DropoutConfig(Config):
    """How much is trained."""

    seeds: tuple[int, ...] = (0, 1, 2)  # trainings of each way
    steps: Annotated[int, Ge(1)] = 200  # of each
    batch: Annotated[int, Ge(1)] = 16  # pictures a step
    scenes: Annotated[int, Ge(2)] = 1_000  # learnt from


@dataclass(frozen=True)
class Case:
    """One training."""

    way: str
    seed: int


class Subject:
    """The base, the scenes that are learnt from, and those that are judged."""

    def __init__(self, config: DropoutConfig):
        self.config, self.digest = config, f"{config.scenes} scenes"
        self.model = TextToImage.load("emoji-diffusion", device="cpu")
        self.encoder = DualEncoder.load("emoji-clip-vit", device="cpu")

    @cached_property
    def banks(self) -> tuple[Bank, Bank]:
        """Of the scenes that are learnt from, and of those after them."""
        both: Bank = finished(
            _bank(self.model, ConditionedPictures(f"emoji-scenes:{self.config.scenes + JUDGED}"), self.encoder)
        )
        at = self.config.scenes
        return (
            Bank(both.images[:at], both.latents[:at], both.sets[:at]),
            Bank(both.images[at:], both.latents[at:], both.sets[at:]),
        )


def measure(bench: Bench[DropoutConfig, Subject], case: Case) -> dict[str, float]:
    """Losses by subset after one training."""
    subject, config = bench.subject, bench.config
    learnt, judged = subject.banks
    chosen = ConditionsConfig(steps=config.steps, batch=config.batch, seed=case.seed, **WAYS[case.way])  # type: ignore[arg-type]
    fresh = fresh_adapter(subject.model, LEARNT, subject.encoder, case.seed)
    learner = ConditionLearner(subject.model, fresh, learnt, chosen)
    finished(fit(learner, config.steps))
    judge = ConditionLearner(subject.model, learner.averaged(), judged, chosen)
    generator = torch.Generator().manual_seed(FRESH)
    noise = torch.randn(judged.latents.shape, generator=generator)
    timesteps = (torch.arange(JUDGED) * subject.model.timesteps) // JUDGED
    sets = [judge.drawn(place, np.random.default_rng((FRESH, place))) for place in range(JUDGED)]
    found = {}
    with torch.no_grad():
        for subset, kept in SUBSETS.items():
            given = [each.only(kept) for each in sets]
            parts = [
                judge.errors(
                    given[at : at + 32], judged.latents[at : at + 32], noise[at : at + 32], timesteps[at : at + 32]
                )
                for at in range(0, JUDGED, 32)
            ]
            found[subset] = float(torch.cat(parts).mean())
    return found


def cases(config: DropoutConfig) -> list[Case]:
    """Seeds in turn, so that what was stopped has every way."""
    return [Case(way, seed) for seed in config.seeds for way in WAYS]


def rows(bench: Bench[DropoutConfig, Subject]) -> Iterator[Row]:
    """All claims, paired over seeds."""

    def losses(way: str, subset: str) -> np.ndarray:
        return np.array([bench.found(Case(way, seed))[subset] for seed in bench.config.seeds])

    for subset in ("intensity", "others", "all"):
        yield paired(f"condition_dropout.{subset}", losses("half", subset), losses("often", subset))
    for ending, subset in (("", "all"), ("_intensity", "intensity"), ("_others", "others")):
        control = float((losses("shuffled", "none") - losses("shuffled", subset)).mean())
        found = paired(f"condition_dropout.gain{ending}", losses("often", "none"), losses("often", subset))
        yield replace(found, control=control)


def opened(config: DropoutConfig, cache: Any) -> Subject:
    """The base and its scenes."""
    return Subject(config)


FULL = DropoutConfig()
BENCHMARKS = (
    Benchmark(
        "condition-dropout",
        __doc__,
        FULL,
        DropoutConfig((0, 1), 3, 4, 8),
        CLAIMS,
        rows,
        cases,
        measure,
        opened,
        seeds=FULL.seeds,
    ),
)
