"""Few-shot methods side by side: accuracy with 1, 4 and 16 pictures of each class, on the same shots, steps, batches and crops.

    python -m benchmarks few-shot           # writes benchmarks/results/few-shot.json
    python -m benchmarks few-shot --model emoji-clip-cnn    # another model, without the methods it cannot do; prints only

Two tasks of 50 classes: known things in the style that no bundled model saw, and things none saw (trained on in some styles, tested
in others). Shots are drawn anew by every seed; intervals are over seeds and test pictures, gains are paired by both. The control
is the linear probe on shuffled labels. Each cell of methods x shots x seeds is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import key_hash
from photopic.core.config import Config
from photopic.core.events import Steps
from photopic.core.results import Report
from photopic.core.runs import Run
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import LabelledImages, ShotPool
from photopic.learning.classifiers import Tuned
from photopic.measure._few_shot_methods import able, learner
from photopic.measure.few_shot import LearningCurveConfig, learning_curve
from photopic.models.dual_encoder import DualEncoder

REFERENCE, SHUFFLED = "zero-shot", "shuffled"
METHODS = "zero-shot linear-probe coop tip-adapter tip-adapter-f lora bitfit full mask tuners"
CLASSES = 50
TASK_SEED = 1  # learning rates were chosen on the classes of seed 0
CLAIMS = (Claim("few_shot.accuracy.*", "", f"baseline: {REFERENCE}; control: the linear probe on shuffled labels"),)


@dataclass(frozen=True)
class FewShotConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 3  # draws of the shots
    shots: tuple[int, ...] = (1, 4, 16)  # pictures of each class
    steps: Annotated[int, Ge(1)] = 40  # of learning
    batch: Annotated[int, Ge(1)] = 16  # pictures of a step
    tasks: tuple[str, ...] = ("held-out-style", "held-out-concepts")  # of the emoji world
    test_per_class: Annotated[int, Ge(1)] = 8  # pictures of each class to measure on
    methods: tuple[str, ...] = tuple(METHODS.split())  # those that the model cannot do are left out
    model: str = "emoji-clip-vit"  # a bundled name or a folder


QUICK = FewShotConfig(1, (1, 4), steps=3, batch=8, tasks=("held-out-style",), test_per_class=3)


@cache
def drawn(task: str, shots: int, test_per_class: int) -> ShotPool:
    """Pictures to draw shots from and to test on."""
    parts = emoji_task(task, classes=CLASSES, train_per_class=shots, test_per_class=test_per_class, seed=TASK_SEED)
    return ShotPool(*parts)


def shuffled(model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
    """The control: a linear probe on labels in random order."""
    labels = np.random.default_rng(seed).permutation(data.labels)
    return (yield from learner("linear-probe", {})(model, LabelledImages(data.images, labels, data.names), seed))


def curve(bench: Bench[Any, DualEncoder], config: FewShotConfig, task: str) -> Report:
    """The learning curve of a task; its cells are kept in a folder of their own, so a part of it is not made again."""
    pool = drawn(task, max(bench.config.shots), config.test_per_class)
    budget = [config.steps, config.batch, config.test_per_class, max(bench.config.shots)]
    folder = key_hash({"code": bench.code, "budget": budget, "of": bench.digest, "task": task})
    asked = LearningCurveConfig(
        methods=tuple(able(config.methods, bench.subject)),  # type: ignore[arg-type]  # words, which it checks
        shots=config.shots,
        seeds=config.seeds,
        steps=config.steps,
        batch=config.batch,
    )
    return learning_curve(
        bench.subject, pool, others={SHUFFLED: shuffled}, config=asked, run=Run(bench.cache.folder / folder)
    )


def measure(bench: Bench[Any, DualEncoder], case: FewShotConfig) -> float:
    """Learn what one task and number of shots needs; the seconds of it."""
    return float(sum(row["seconds"] * row["seeds"] for row in curve(bench, case, case.tasks[0]).rows))


def cases(config: FewShotConfig) -> list[FewShotConfig]:
    """A task and a number of shots each."""
    return [replace(config, shots=(shots,), tasks=(task,)) for shots in config.shots for task in config.tasks]


def rows(bench: Bench[FewShotConfig, DualEncoder]) -> Iterator[Row]:
    """The accuracy of every method with every number of shots."""
    for task in bench.config.tasks:
        report = curve(bench, bench.config, task)
        found = {(each["method"], each["shots"]): each for each in report.rows}
        for (method, shots), each in found.items():
            if method != SHUFFLED:
                beside = [found.get((other, shots), {"score": None})["score"] for other in (REFERENCE, SHUFFLED)]
                yield accuracy(bench.config.model, task, each, beside, report.values["test_pictures"][0])


def accuracy(model: str, task: str, found: Any, beside: list[float | None], pictures: int) -> Row:
    """The accuracy of one method with one number of shots."""
    name = Path(model).name
    note = f"{name}; {found['trainable']:,} trained, {found['size_bytes']:,} bytes, {found['seconds']:.1f} s"
    if found["gain"] is not None:
        note += f"; gain over {REFERENCE} {found['gain']:+.4f} ({found['gain_low']:+.4f} to {found['gain_high']:+.4f})"
    claim = f"few_shot.accuracy.{'' if name.endswith('vit') else 'cnn.'}{task}.{found['method']}.{found['shots']}"
    value = [found[each] for each in ("score", "low", "high")]
    return row(claim, value, baseline=beside[0], control=beside[1], n=found["seeds"] * pictures, note=note)


BENCHMARKS = (
    Benchmark(
        "few-shot", __doc__, FewShotConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model), seeds=range(FewShotConfig().seeds),
    ),
)  # fmt: skip
