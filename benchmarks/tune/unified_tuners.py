"""Unified tuners on few-shot tasks of the emoji world: more branches against fewer and none, scales, serial against parallel.

    python -m benchmarks unified-tuners           # writes benchmarks/results/unified-tuners.json

The task: 200 known things in the style that the model never saw, two or four pictures of each. A first run, with sixteen pictures
of 50 things, was no test: the linear probe had 0.99 in that style, and 0.60 on things never seen, where branches added nothing.
Every method gets the same shots, steps, batches, crops and start of the classifier.
The linear probe is the same loop without a branch, at the best of two learning rates by its test accuracy, which favours it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.tuned_classifier import TunedClassifier
from photopic.metrics.intervals import Interval, bootstrap, paired_bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.unified_tuners import BRANCHES, UnifiedTunersConfig, unified_tuners

TASK, CLASSES = "held-out-style", 200
NAMES = "names"  # the class names alone: nothing is trained
LINEAR = ("linear", "linear-fast")  # the linear probe at two learning rates
EVERYWHERE = (*LINEAR, "single", "dual")  # ways with every number of shots; the others with the most alone
WAYS: dict[str, dict[str, Any]] = {
    "linear": {"tuners": BRANCHES["linear"]},
    "linear-fast": {"tuners": BRANCHES["linear"], "lr": 1e-2},
    "single": {"tuners": BRANCHES["single"]},
    "dual": {"tuners": BRANCHES["dual"]},
    "tri": {"tuners": BRANCHES["tri"]},
    "dual-none": {"tuners": BRANCHES["dual"], "scaling": "none"},
    "dual-serial": {"tuners": tuple(replace(spec, serial=True) for spec in BRANCHES["dual"])},
    "dual-shuffled": {"tuners": BRANCHES["dual"]},  # the control: labels in random order
}
SPREAD = (
    "serial against parallel; the target is the deviation of the parallel one between seeds, which draw classes too"
)
CLAIMS = (
    Claim("unified_tuners.dual_vs_single*", ">= 0", "two branches against one"),
    Claim("unified_tuners.single_vs_linear_probe*", ">= 0", "one branch against none"),
    Claim("unified_tuners.channel_vs_none", ">= 0", "scales by channel against none"),
    Claim("unified_tuners.tri_vs_dual", ">= 0", "three branches against two"),
    Claim("unified_tuners.original_vs_parallel_gap", "", SPREAD),
    Claim(
        "unified_tuners.gain_over_zero_shot", "low > 0", "dual over class names; control: learnt from shuffled labels"
    ),
    Claim(
        "unified_tuners.parameters_trained",
        "",
        "dual with the classifier; baseline: weights of the image tower",
        "numbers",
    ),
    Claim("unified_tuners.accuracy.*"),
)


@dataclass(frozen=True)
class TunersConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of classes, shots and learning
    shots: tuple[int, ...] = (2, 4)  # pictures of each class
    steps: Annotated[int, Ge(1)] = 80  # of learning
    test: Annotated[int, Ge(1)] = 5  # pictures of each class to measure on
    model: str = "emoji-clip-vit"  # a bundled name or a folder

    @property
    def most(self) -> int:
        """The number of shots that everything is trained with."""
        return self.shots[-1]


@dataclass(frozen=True)
class Case:
    """One training, or the class names alone."""

    way: str
    shots: int
    seed: int
    steps: int
    test: int


def cases_of(config: TunersConfig, way: str, shots: int) -> list[Case]:
    """A way with some shots, every seed."""
    return [Case(way, shots, seed, config.steps, config.test) for seed in config.seeds]


def cases(config: TunersConfig) -> list[Case]:
    """Everything that is measured."""
    pairs = [(way, shots) for shots in config.shots for way in WAYS if way in EVERYWHERE or shots == config.most]
    return [case for pair in [*pairs, (NAMES, 0)] for case in cases_of(config, *pair)]


@cache
def drawn(seed: int, test: int) -> tuple[LabelledImages, LabelledImages]:
    """Pictures to draw shots from and to test on."""
    return emoji_task(TASK, classes=CLASSES, train_per_class=4, test_per_class=test, seed=seed)


def measure(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, float]:
    """Train one case and test it."""
    model, (pool, test) = bench.subject, drawn(case.seed, case.test)
    if case.way == NAMES:
        return {"accuracy": accuracy(TextClassifier(model, model.class_features(test.names)), test)}
    train = pool.shots(case.shots, case.seed)
    if case.way == "dual-shuffled":
        train = replace(train, labels=np.random.default_rng(case.seed).permutation(train.labels))
    config = UnifiedTunersConfig(**{"steps": case.steps, "seed": case.seed} | WAYS[case.way])
    began = time.monotonic()
    classifier = TunedClassifier(model, unified_tuners(model, FewShotTask(train), config=config))
    seconds = time.monotonic() - began
    numbers = {"seconds": seconds, "trainable": classifier.trainable, "bytes": classifier.size_bytes}
    return {"accuracy": accuracy(classifier, test)} | numbers


def accuracy(classifier: Any, test: LabelledImages) -> float:
    """Share of the pictures named right."""
    return float((classifier.logits(test.images).argmax(1).numpy() == test.labels).mean())


Tests = Bench[TunersConfig, DualEncoder]


def column(bench: Tests, way: str, shots: Sequence[int], what: str = "accuracy") -> list[float]:
    """What was found of a way, seed by seed within shots."""
    return [bench.found(case)[what] for count in shots for case in cases_of(bench.config, way, count)]


def difference(bench: Tests, one: str, other: str, shots: Sequence[int]) -> Interval:
    """Paired difference of accuracies; the draws of a seed are resampled as one."""
    groups = [seed for _ in shots for seed in bench.config.seeds]
    return paired_bootstrap(column(bench, one, shots), column(bench, other, shots), groups=groups)


def compared(bench: Tests, one: str, other: str, shots: Sequence[int], claim: str) -> Row:
    """A row for one way against another."""
    means = [float(np.mean(column(bench, way, shots))) for way in (one, other)]
    note = f"{one} {means[0]:.3f}, {other} {means[1]:.3f}; shots {', '.join(map(str, shots))}"
    interval, count = difference(bench, one, other, shots), len(bench.config.seeds) * len(shots)
    return row(f"unified_tuners.{claim}", interval, baseline=means[1], n=count, note=note)


def best_linear(bench: Tests, shots: Sequence[int]) -> str:
    """The rate at which the linear probe tests best."""
    return max(LINEAR, key=lambda way: float(np.mean(column(bench, way, shots))))


def gap(bench: Tests) -> Row:
    """Serial against parallel adapters, measured by how much accuracies differ between seeds."""
    most = [bench.config.most]
    parallel = column(bench, "dual", most)
    spread = float(np.std(parallel, ddof=1)) if len(parallel) > 1 else 0.0
    value, low, high = difference(bench, "dual-serial", "dual", most)
    note = f"serial minus parallel {value:.4f}, 95 % interval {low:.4f} to {high:.4f}; {most[0]} shots"
    claim = "unified_tuners.original_vs_parallel_gap"
    return row(claim, abs(value), target=f"<= {spread:.4f}", n=len(parallel), note=note)


def gain(bench: Tests) -> Row:
    """What dual gains over the class names; with shuffled labels as the control."""
    names, most = column(bench, NAMES, [0]), [bench.config.most]
    values, shuffled = (column(bench, way, most) for way in ("dual", "dual-shuffled"))
    note = f"{most[0]} shots; from shuffled labels: accuracy {np.mean(shuffled):.3f}, chance {1 / CLASSES:.3f}"
    beside: dict[str, Any] = {"baseline": float(np.mean(names)), "control": float(np.mean(shuffled) - np.mean(names))}
    interval = paired_bootstrap(values, names)
    return row("unified_tuners.gain_over_zero_shot", interval, n=len(names), note=note, **beside)


def rows(bench: Tests) -> Iterator[Row]:
    """All claims."""
    config, several = bench.config, len(bench.config.shots) > 1
    for some in (config.shots, *((each,) for each in config.shots if several)):
        suffix = f".{some[0]}shot" if several and len(some) == 1 else ""
        yield compared(bench, "dual", "single", some, f"dual_vs_single{suffix}")
        yield compared(bench, "single", best_linear(bench, some), some, f"single_vs_linear_probe{suffix}")
    yield compared(bench, "dual", "dual-none", [config.most], "channel_vs_none")
    yield compared(bench, "tri", "dual", [config.most], "tri_vs_dual")
    yield gap(bench)
    yield gain(bench)
    dual = bench.found(cases_of(config, "dual", config.most)[0])
    tower = sum(each.numel() for each in bench.subject.image_tower.parameters())
    note = f"{CLASSES} classes; file {dual['bytes']:,.0f} bytes"
    yield row("unified_tuners.parameters_trained", dual["trainable"], baseline=tower, n=1, note=note)
    for way in WAYS:
        for shots in config.shots if way in EVERYWHERE else [config.most]:
            seconds = np.mean(column(bench, way, [shots], "seconds"))
            values = column(bench, way, [shots])
            note = f"{config.steps} steps in {seconds:.1f} s"
            yield row(f"unified_tuners.accuracy.{way}-{shots}shot", bootstrap(values), n=len(values), note=note)


BENCHMARKS = (
    Benchmark(
        "unified-tuners", __doc__, TunersConfig(), TunersConfig((0,), (2,), 4, 2), CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model), seeds=TunersConfig().seeds,
    ),
)  # fmt: skip
