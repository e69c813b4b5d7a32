"""What a classifier learns from pictures mixed by FMix, CutMix or MixUp, beyond the same steps without.

    python -m benchmarks fmix                # writes benchmarks/results/fmix.json

Protocol, written before the run. A small residual network with random weights learns 30 concepts, 40 pictures each, from half of
the styles that draw them, in 400 steps of 64 pictures with random crops, and is judged on 900 pictures of the same concepts in the
other styles. Arms of a seed share classes, pictures, weights at the start and batches; five seeds, each with its own of all these.
Intervals are Student's t of the paired differences of accuracy. Classes, pictures, steps and rate were chosen on seed 100 by the
arm without mixing alone: neither chance nor all right. The shares of all three are drawn from Beta(1, 1), as published for CutMix
and FMix.

- ``fmix.gain``: FMix minus no mixing; the control, ``white``, is FMix at decay 0: masks of the same shares without any shape.
- ``fmix.gain_over_cutmix``, ``fmix.gain_over_mixup``: FMix minus CutMix, and minus MixUp.
- ``fmix.cutmix_gain``, ``fmix.mixup_gain``: theirs, beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, paired
from photopic.core.config import Config
from photopic.data.emoji_tasks import emoji_task
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from photopic.train.adaptation.fmix import FMixConfig, fmix

SIZE = 32  # pixels
ARMS = ("none", "fmix", "cutmix", "mixup", "white")
CLAIMS = (
    Claim("fmix.gain", "low > 0", "accuracy in other styles: FMix minus no mixing"),
    Claim("fmix.gain_over_cutmix", "low >= 0", "FMix minus CutMix"),
    Claim("fmix.gain_over_mixup", "", "FMix minus MixUp"),
    Claim("fmix.cutmix_gain", "", "CutMix minus no mixing"),
    Claim("fmix.mixup_gain", "", "MixUp minus no mixing"),
)


@dataclass(frozen=True)
class MixedBench(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 400  # of each arm
    classes: Annotated[int, Ge(2)] = 30  # concepts
    pictures: Annotated[int, Ge(1)] = 40  # of a class to learn from
    judged: Annotated[int, Ge(1)] = 30  # of a class to judge on
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of weights, order, masks and what is judged on


@dataclass(frozen=True)
class Case:
    """One arm with one seed."""

    arm: str
    seed: int
    steps: int
    classes: int
    pictures: int
    judged: int


def cases(config: MixedBench) -> list[Case]:
    """Every arm with every seed, seed by seed, so that what is interrupted is paired."""
    how = (config.steps, config.classes, config.pictures, config.judged)
    return [Case(arm, seed, *how) for seed in config.seeds for arm in ARMS]


def measure(bench: Bench[MixedBench, Any], case: Case) -> float:
    """Accuracy on the other styles."""
    train, test = emoji_task(
        "held-out-concepts", classes=case.classes, train_per_class=case.pictures, test_per_class=case.judged,
        seed=case.seed, size=SIZE,
    )  # fmt: skip
    model = untrained(train.names, case.seed)
    mixing: Any = "fmix" if case.arm == "white" else case.arm
    config = FMixConfig(
        mixing=mixing, decay=0.0 if case.arm == "white" else 3.0, steps=case.steps, lr=2e-3, seed=case.seed
    )
    with model.edits.applied(fmix(model, train, config=config)):
        return float((model.logits(test.images).argmax(1).numpy() == test.labels).mean())


def untrained(names: tuple[str, ...], seed: int) -> Classifier:
    """A residual network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1]}
        config = ResNetConfig(**shape, layer_type="basic", id2label=dict(enumerate(names)))
        network = ResNetForImageClassification(config)
    prepare = Preprocessing(resize=(SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)
    return Classifier(network, preprocess=prepare, labels=names, name="residual")


def rows(bench: Bench[MixedBench, Any]) -> Iterator[Row]:
    """The claims."""

    def of(arm: str) -> np.ndarray:
        return np.array([bench.found(case) for case in bench.cases if case.arm == arm])

    yield paired("fmix.gain", of("fmix"), of("none"), of("white"))
    yield paired("fmix.gain_over_cutmix", of("fmix"), of("cutmix"))
    yield paired("fmix.gain_over_mixup", of("fmix"), of("mixup"))
    yield paired("fmix.cutmix_gain", of("cutmix"), of("none"))
    yield paired("fmix.mixup_gain", of("mixup"), of("none"))


FULL = MixedBench()
BENCHMARKS = (
    Benchmark(
        "fmix",
        __doc__,
        FULL,
        replace(FULL, steps=2, classes=3, pictures=4, judged=4, seeds=(0,)),
        CLAIMS,
        rows,
        cases,
        measure,
        seeds=FULL.seeds,
    ),
)
