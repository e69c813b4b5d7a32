"""Merging two specialists: one learnt things nobody knew in one style, one in another; what one model of both knows of them.

    python -m benchmarks merging            # writes benchmarks/results/merging.json

A bundled dual encoder is fine-tuned on things it never saw, in one style, and again in another; each specialist is an edit. Every
rule of ``photopic edit merge`` makes one edit of the two. Accuracy is on other pictures of both styles, paired by seed and style.
Control of Fisher merging: Fishers that are measured on noise. Memory is that of a network of 10 million weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.data import emoji_world
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.edit.merging.merge import MergeConfig, merge
from photopic.learning.classifiers import TextClassifier
from photopic.metrics.intervals import bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.full import FullConfig, full_fine_tuning

SEED = 8_400_000
STYLES = ("noto", "openmoji")  # of the two specialists
RULES: dict[str, MergeConfig] = {
    "average": MergeConfig(),
    "task_arithmetic": MergeConfig(by="task-arithmetic", scale=0.7),
    "ties": MergeConfig(by="ties", keep=0.2),
    "dare": MergeConfig(by="dare", drop=0.5, scale=0.7),
    "fisher": MergeConfig(by="fisher", pictures=128),
    "fisher_of_noise": MergeConfig(by="fisher", pictures=128),
}
CLAIMS = (
    Claim(
        "fisher_merging.gain",
        "low > 0",
        "accuracy over both styles minus the plain average's; control: Fishers of noise",
    ),
    Claim(
        "fisher_merging.memory",
        "<= 2.2",
        "anonymous memory at most, beyond the base, over the base's, merging 8; baseline: 2",
    ),
    Claim("merging.accuracy.*", "", "accuracy over both styles; baseline: the base; control: the mean specialist"),
)


@dataclass(frozen=True)
class MergingConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 5  # draws of classes and pictures
    classes: Annotated[int, Ge(2)] = 30  # things that nobody knew
    steps: Annotated[int, Ge(1)] = 60  # of fine-tuning a specialist
    shots: Annotated[int, Ge(1)] = 8  # pictures of each class to learn from
    test: Annotated[int, Ge(1)] = 8  # pictures of each class and style to measure on
    width: Annotated[int, Ge(8)] = 1000  # of ten layers whose merging is watched for memory
    model: str = "emoji-clip-vit"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """Two specialists of one seed and all merges of them."""

    seed: int
    classes: int
    steps: int
    shots: int
    test: int


def pictures(names: tuple[str, ...], style: str, each: int, seed: tuple[int, ...]) -> LabelledImages:
    """Single things in one style, at random places on random backgrounds."""
    found = []
    for label, name in enumerate(names):
        options = SceneOptions(concepts=(name,), styles=(style,), size=64, objects=(1.0, 0.0, 0.0, 0.0))
        found += [sample_scene(options, (SEED, *seed, label, number)).image for number in range(each)]
    return LabelledImages(np.stack(found), np.repeat(np.arange(len(names)), each), names)


def unknown(count: int, seed: int) -> tuple[str, ...]:
    """Things that no bundled model saw, drawn in both styles."""
    found = [
        item.name
        for item in emoji_world.select(split="held_out")
        if not item.is_variant and set(STYLES) <= set(item.styles)
    ]
    return tuple(sorted(map(str, np.random.default_rng((SEED, seed)).choice(sorted(found), count, replace=False))))


def measure(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, list[float]]:
    """Accuracy in each style of the base, both specialists and every merge."""
    model, names = bench.subject, unknown(case.classes, case.seed)
    train = [pictures(names, style, case.shots, (case.seed, place)) for place, style in enumerate(STYLES)]
    test = [pictures(names, style, case.test, (case.seed, place, 1)) for place, style in enumerate(STYLES)]
    rows = model.class_features(names)

    def right(edit: Edit | None) -> list[float]:
        tuned = TextClassifier(model, rows, edit)
        return [float((tuned.logits(each.images).argmax(1).numpy() == each.labels).mean()) for each in test]

    config = FullConfig(steps=case.steps, seed=case.seed)
    edits = [full_fine_tuning(model, FewShotTask(each), config=config) for each in train]
    noise = np.random.default_rng((SEED, case.seed)).integers(0, 256, train[0].images.shape, dtype=np.uint8)  # type: ignore[union-attr]
    unrelated = LabelledImages(noise, train[0].labels, names)
    found = {"base": right(None)} | {f"specialist {number}": right(each) for number, each in enumerate(edits)}
    for rule, how in RULES.items():
        images = [unrelated] * 2 if rule == "fisher_of_noise" else train
        found[rule] = right(merge(edits, model=model, images=images, config=how))
    return found


def peaks(width: int) -> dict[str, float]:
    """Memory while 2 and 8 edits are merged, in a process whose allocator gives back what is freed."""
    code = f"from benchmarks.edit.merging_memory import main; main({width})"
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def cases(config: MergingConfig) -> list[Case]:
    """One a seed."""
    return [Case(seed, config.classes, config.steps, config.shots, config.test) for seed in range(config.seeds)]


def rows(bench: Bench[MergingConfig, DualEncoder]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    found = [bench.found(case) for case in bench.cases]
    over = {rule: np.array([each[rule] for each in found]) for rule in found[0]}  # (seeds, styles)
    groups = np.repeat(np.arange(len(found)), len(STYLES)).tolist()

    def gain(rule: str) -> Any:
        return bootstrap((over[rule] - over["average"]).ravel(), groups=groups, seed=SEED)

    count, control = len(found) * len(STYLES), gain("fisher_of_noise")
    said = f"of noise {control.value:+.4f} ({control.low:+.4f} to {control.high:+.4f})"
    yield row("fisher_merging.gain", gain("fisher"), n=count, baseline=0.0, control=control.value, note=said)
    alone = mean(over[f"specialist {number}"].mean() for number in range(2))
    for rule in RULES:
        value = bootstrap(over[rule].ravel(), groups=groups, seed=SEED)
        yield row(f"merging.accuracy.{rule}", value, n=count, baseline=over["base"].mean(), control=alone)
    memory = bench.value({"memory": bench.config.width}, lambda: peaks(bench.config.width))
    yield row("fisher_merging.memory", memory["8"], baseline=memory["2"], note=f"{memory['mb']:.0f} MB of weights")


QUICK = MergingConfig(1, 4, 2, 2, 2, 100)
BENCHMARKS = (
    Benchmark(
        "merging", __doc__, MergingConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model, "cpu"), seeds=(0, 1, 2, 3, 4, SEED),
    ),
)  # fmt: skip
