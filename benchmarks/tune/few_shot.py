"""Few-shot methods side by side: accuracy with 1, 4 and 16 pictures of each class, on the same shots, steps, batches and crops.

    python -m benchmarks.tune.few_shot           # writes benchmarks/results/few-shot.json; two workers
    python -m benchmarks.tune.few_shot --quick   # one seed, few steps, prints only
    python -m benchmarks.tune.few_shot --model emoji-clip-cnn    # another model, without the methods it cannot do; prints only

Two tasks of 50 classes: known things in the style that no bundled model saw, and things none saw (trained on in some styles, tested
in others). Shots are drawn anew by every seed; intervals are over seeds and test pictures, gains are paired by both. The control
is the linear probe on shuffled labels. Each cell of methods x shots x seeds is kept under ``runs/few-shot``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.cache import code_of, key_hash
from benchmarks.harness.ledger import ROOT, Row, write_result
from benchmarks.harness.runner import in_parallel, line_of, mine
from photopic.core.events import Steps
from photopic.core.results import Report
from photopic.core.runs import Run
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import LabelledImages, ShotPool
from photopic.learning.classifiers import Tuned
from photopic.measure._few_shot_methods import able, learner
from photopic.measure.few_shot import LearningCurveConfig, learning_curve
from photopic.models.dual_encoder import DualEncoder

MODELS = ("emoji-clip-vit",)  # emoji-clip-cnn with --model, to fit into a quarter of an hour
REFERENCE, SHUFFLED = "zero-shot", "shuffled"
METHODS = (
    REFERENCE,
    "linear-probe",
    "coop",
    "tip-adapter",
    "tip-adapter-f",
    "lora",
    "bitfit",
    "full",
    "mask",
    "tuners",
)
CLASSES = 50
TASK_SEED = 1  # learning rates were chosen on the classes of seed 0
CODE = (
    "photopic.measure.few_shot",
    "photopic.data.emoji_tasks",
    "photopic.tune.few_shot.mask_tuning",
    "photopic.tune.few_shot.unified_tuners",
    *(
        f"photopic.tune.few_shot.{name}"
        for name in ("zero_shot", "linear_probe", "coop", "tip_adapter", "lora", "bias_only", "full")
    ),
)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seeds: tuple[int, ...]
    shots: tuple[int, ...]
    steps: int
    batch: int
    tasks: tuple[str, ...] = ("held-out-style", "held-out-concepts")
    test_per_class: int = 8


FULL = Settings((0, 1, 2), (1, 4, 16), steps=40, batch=16)
QUICK = Settings((0,), (1, 4), steps=3, batch=8, tasks=("held-out-style",), test_per_class=3)
Unit = tuple[str, str, int]  # model, task, shots


@cache
def drawn(task: str, shots: int, test_per_class: int) -> ShotPool:
    """Pictures to draw shots from and to test on."""
    parts = emoji_task(task, classes=CLASSES, train_per_class=shots, test_per_class=test_per_class, seed=TASK_SEED)
    return ShotPool(*parts)


@cache
def loaded(name: str) -> DualEncoder:
    """A dual encoder."""
    return DualEncoder.load(name)


def shuffled(model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
    """The control: a linear probe on labels in random order."""
    labels = np.random.default_rng(seed).permutation(data.labels)
    return (yield from learner("linear-probe", {})(model, LabelledImages(data.images, labels, data.names), seed))


def curve(model: DualEncoder, task: str, settings: Settings, methods: Sequence[Any], **chosen: Any) -> Report:
    """The learning curve of a task, or a part of it; what is kept is not made again."""
    key = {
        "code": code_of(*CODE, shuffled, learner),
        "budget": [settings.steps, settings.batch, settings.test_per_class, max(settings.shots)],
        "model": model.digest(),
        "task": task,
    }
    config = LearningCurveConfig(
        methods=tuple(methods),
        seeds=len(settings.seeds),
        steps=settings.steps,
        batch=settings.batch,
        **({"shots": settings.shots} | chosen),
    )
    folder = ROOT / "runs" / "few-shot" / key_hash(key)
    pool = drawn(task, max(settings.shots), settings.test_per_class)
    return learning_curve(model, pool, others={SHUFFLED: shuffled}, config=config, run=Run(folder))


def rows(models: Sequence[str], settings: Settings, methods: Sequence[str]) -> tuple[list[Row], float]:
    """All claims, and the seconds of learning behind them."""
    made, seconds = [], 0.0
    for name in models:
        for task in settings.tasks:
            report = curve(loaded(name), task, settings, able(methods, loaded(name)))
            by_key = {(row["method"], row["shots"]): row for row in report.rows}
            for (method, shots), row in by_key.items():
                seconds += row["seconds"] * row["seeds"]
                if method != SHUFFLED:
                    beside = [by_key[each, shots]["score"] for each in (REFERENCE, SHUFFLED) if (each, shots) in by_key]
                    made.append(claim(name, task, row, beside, report))
    return made, seconds


def claim(model: str, task: str, row: Any, beside: Sequence[float], report: Report) -> Row:
    """The accuracy of one method with one number of shots."""
    which = "" if Path(model).name.endswith("vit") else "cnn."
    note = f"{Path(model).name}; {row['trainable']:,} trained, {row['size_bytes']:,} bytes, {row['seconds']:.1f} s"
    if row["gain"] is not None:
        note += f"; gain over {REFERENCE} {row['gain']:+.4f} ({row['gain_low']:+.4f} to {row['gain_high']:+.4f})"
    pictures = report.values["test_pictures"][0]
    score, low, high = (round(row[each], 4) for each in ("score", "low", "high"))
    baseline, control = (*beside, None)[:2] if len(beside) > 1 else (None, beside[0])
    return Row(
        f"few_shot.accuracy.{which}{task}.{row['method']}.{row['shots']}",
        score,
        low,
        high,
        baseline=None if baseline is None else round(baseline, 4),
        control=None if control is None else round(control, 4),
        n=row["seeds"] * pictures,
        note=note,
    )


def main() -> None:
    """Be the main process or a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps; prints only")
    parser.add_argument("--model", action="append", help="bundled names or folders; prints only")
    parser.add_argument("--methods", action="append", help="only these; prints only")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = QUICK if options.quick else FULL
    models, methods = options.model or list(MODELS), options.methods or list(METHODS)
    if options.part:
        units: list[Unit] = [
            (name, task, shots) for name in models for shots in settings.shots for task in settings.tasks
        ]
        for name, task, shots in mine(units, options.part):
            curve(loaded(name), task, settings, able(methods, loaded(name)), shots=(shots,))
            print(Path(name).name, task, shots, flush=True)
        return
    passed = ["--quick"] if options.quick else []
    for flag, values in (("--model", models), ("--methods", methods)):
        passed += [word for value in values for word in (flag, value)]
    in_parallel(__file__, passed, options.workers)
    began = time.monotonic()
    found, seconds = rows(models, settings, methods)
    seconds += time.monotonic() - began
    for row in found:
        print(line_of(row))
    print(f"{seconds:.0f} s of learning")
    if not (options.quick or options.model or options.methods):
        command = "python -m benchmarks.tune.few_shot"
        write_result("few-shot", found, command=command, seeds=settings.seeds, elapsed_s=seconds)


if __name__ == "__main__":
    main()
