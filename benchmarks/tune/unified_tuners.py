"""Unified tuners on few-shot tasks of the emoji world: more branches against fewer and none, scales, serial against parallel.

    python -m benchmarks.tune.unified_tuners           # tables and benchmarks/results/unified-tuners.json; two workers
    python -m benchmarks.tune.unified_tuners --quick   # one seed, few steps, prints only

The task: 200 known things in the style that the model never saw, two or four pictures of each. A first run, with sixteen pictures
of 50 things, was no test: the linear probe had 0.99 in that style, and 0.60 on things never seen, where branches added nothing.
Every method gets the same shots, steps, batches, crops and start of the classifier.
The linear probe is the same loop without a branch, at the best of two learning rates by its test accuracy, which favours it. Each
training is kept under ``runs/unified-tuners``, so an interrupted benchmark goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.harness.cache import Kept, code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, Handle, dual_encoder, mine, run
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.tuned_classifier import TunedClassifier
from photopic.metrics.intervals import Interval, bootstrap, paired_bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.unified_tuners import BRANCHES, UnifiedTunersConfig, unified_tuners

MODEL = "emoji-clip-vit"
TASKS = ("held-out-style",)
CLASSES = 200
CODE = ("photopic.tune.few_shot.unified_tuners", "photopic.data.emoji_tasks", "photopic.data.few_shot")
LINEAR = ("linear", "linear-fast")  # the linear probe at two learning rates
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


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seeds: tuple[int, ...]
    shots: tuple[int, ...]
    steps: int
    tasks: tuple[str, ...] = TASKS
    test_per_class: int = 5


FULL = Settings((0, 1, 2, 3, 4), (2, 4), 80)
QUICK = Settings((0,), (2,), 4, TASKS[:1], 2)
Case = tuple[str, str, int, int]  # way, task, shots, seed


def cases(settings: Settings) -> list[Case]:
    """Everything that is trained; variants of dual and the control at the most shots alone."""
    everywhere = (*LINEAR, "single", "dual")
    most = settings.shots[-1]
    return [
        (way, task, shots, seed)
        for seed in settings.seeds
        for task in settings.tasks
        for shots in settings.shots
        for way in WAYS
        if way in everywhere or shots == most
    ]


@cache
def drawn(task: str, seed: int, test_per_class: int) -> tuple[LabelledImages, LabelledImages]:
    """Pictures to draw shots from and to test on."""
    return emoji_task(task, classes=CLASSES, train_per_class=4, test_per_class=test_per_class, seed=seed)


def accuracy(classifier: Any, test: LabelledImages) -> float:
    """Share of the pictures named right."""
    return float((classifier.logits(test.images).argmax(1).numpy() == test.labels).mean())


def measured(model: DualEncoder, settings: Settings, case: Case) -> dict[str, float]:
    """Train one case and test it."""
    way, task, shots, seed = case
    pool, test = drawn(task, seed, settings.test_per_class)
    train = pool.shots(shots, seed)
    if way == "dual-shuffled":
        labels = np.random.default_rng(seed).permutation(train.labels)
        train = LabelledImages(train.images, labels, train.names)
    config = UnifiedTunersConfig(**{"steps": settings.steps, "seed": seed} | WAYS[way])
    began = time.monotonic()
    classifier = TunedClassifier(model, unified_tuners(model, FewShotTask(train), config=config))
    return {
        "seconds": time.monotonic() - began,
        "accuracy": accuracy(classifier, test),
        "trainable": classifier.trainable,
        "bytes": classifier.size_bytes,
    }


def zero_shot(model: DualEncoder, settings: Settings, task: str, seed: int) -> float:
    """Accuracy by the class names alone."""
    _, test = drawn(task, seed, settings.test_per_class)
    return accuracy(TextClassifier(model, model.class_features(test.names)), test)


def kept_case(model: DualEncoder, kept: Kept, settings: Settings, case: Case) -> dict[str, float]:
    """One case, made if it is not there."""
    config = asdict(UnifiedTunersConfig(**{"steps": settings.steps, "seed": case[3]} | WAYS[case[0]]))
    key = {"case": case, "config": config, "test": settings.test_per_class, "code": code_of(*CODE, measured)}
    found: dict[str, float] = kept.value(key, lambda: measured(model, settings, case))
    return found


def kept_zero_shot(model: DualEncoder, kept: Kept, settings: Settings, task: str, seed: int) -> float:
    """The same for the class names alone."""
    key = {"zero shot": [task, seed], "test": settings.test_per_class, "code": code_of(*CODE, zero_shot)}
    found: float = kept.value(key, lambda: zero_shot(model, settings, task, seed))
    return found


Found = Mapping[Case, Mapping[str, float]]


def column(found: Found, settings: Settings, way: str, shots: Sequence[int]) -> tuple[list[float], list[str]]:
    """Accuracies of a way, and for each its task and seed, whose draws of classes belong together."""
    where = [(way, task, count, seed) for count in shots for task in settings.tasks for seed in settings.seeds]
    return [found[case]["accuracy"] for case in where], [f"{case[1]} {case[3]}" for case in where]


def best_linear(found: Found, settings: Settings, shots: Sequence[int]) -> str:
    """The rate at which the linear probe tests best."""
    return max(LINEAR, key=lambda way: float(np.mean(column(found, settings, way, shots)[0])))


def difference(found: Found, settings: Settings, one: str, other: str, shots: Sequence[int]) -> Interval:
    """Paired difference of accuracies; a task with its seed is resampled as one."""
    values, groups = column(found, settings, one, shots)
    return paired_bootstrap(values, column(found, settings, other, shots)[0], groups=groups)


def compared(found: Found, settings: Settings, one: str, other: str, shots: Sequence[int], claim: str) -> Row:
    """A row for one way against another."""
    means = [float(np.mean(column(found, settings, way, shots)[0])) for way in (one, other)]
    note = f"{one} {means[0]:.3f}, {other} {means[1]:.3f}; shots {', '.join(map(str, shots))}"
    interval = difference(found, settings, one, other, shots)
    count = len(settings.seeds) * len(settings.tasks) * len(shots)
    return Row(claim, *interval, target=">= 0", baseline=means[1], n=count, note=note)


def rows(model: DualEncoder, kept: Kept, settings: Settings) -> list[Row]:
    """All claims."""
    found = {case: kept_case(model, kept, settings, case) for case in cases(settings)}
    most = settings.shots[-1:]
    made = []
    several = len(settings.shots) > 1
    for some in (settings.shots, *((each,) for each in settings.shots if several)):
        suffix = f".{some[0]}shot" if several and len(some) == 1 else ""
        linear = best_linear(found, settings, some)
        for claim, one, other in (("dual_vs_single", "dual", "single"), ("single_vs_linear_probe", "single", linear)):
            made.append(compared(found, settings, one, other, some, f"unified_tuners.{claim}{suffix}"))
    made.append(compared(found, settings, "dual", "dual-none", most, "unified_tuners.channel_vs_none"))
    made.append(compared(found, settings, "tri", "dual", most, "unified_tuners.tri_vs_dual"))
    made += [gap(found, settings), gain(model, kept, found, settings), trained(model, found, settings)]
    for way in WAYS:
        for shots in settings.shots if way in (*LINEAR, "single", "dual") else most:
            values, groups = column(found, settings, way, [shots])
            interval = bootstrap(values, groups=groups)
            seconds = np.mean(
                [found[way, task, shots, seed]["seconds"] for task in settings.tasks for seed in settings.seeds]
            )
            note = f"{settings.steps} steps in {seconds:.1f} s"
            made.append(Row(f"unified_tuners.accuracy.{way}-{shots}shot", *interval, n=len(values), note=note))
    return made


def gap(found: Found, settings: Settings) -> Row:
    """Serial against parallel adapters, measured by how much accuracies differ between seeds."""
    most = settings.shots[-1:]
    by_task = [[found["dual", task, most[0], seed]["accuracy"] for seed in settings.seeds] for task in settings.tasks]
    spread = float(np.mean([np.std(each, ddof=1) if len(each) > 1 else 0.0 for each in by_task]))
    value, low, high = difference(found, settings, "dual-serial", "dual", most)
    return Row(
        "unified_tuners.original_vs_parallel_gap",
        abs(value),
        target=f"<= {spread:.4f}",
        n=len(settings.seeds) * len(settings.tasks),
        note=f"serial minus parallel {value:.4f}, 95 % interval {low:.4f} to {high:.4f}; the target is the "
        f"deviation of the parallel one between seeds, which draw classes too; {most[0]} shots",
    )


def gain(model: DualEncoder, kept: Kept, found: Found, settings: Settings) -> Row:
    """What dual gains over the class names; with shuffled labels as the control."""
    most = settings.shots[-1]
    pairs = [(task, seed) for task in settings.tasks for seed in settings.seeds]
    names = [kept_zero_shot(model, kept, settings, task, seed) for task, seed in pairs]
    values, shuffled = (
        [found[way, task, most, seed]["accuracy"] for task, seed in pairs] for way in ("dual", "dual-shuffled")
    )
    control = float(np.mean(shuffled) - np.mean(names))
    note = f"{most} shots; the control is learnt from shuffled labels: accuracy {np.mean(shuffled):.3f}, chance {1 / CLASSES:.3f}"
    interval = paired_bootstrap(values, names)
    return Row(
        "unified_tuners.gain_over_zero_shot",
        *interval,
        target="low > 0",
        baseline=float(np.mean(names)),
        control=control,
        n=len(pairs),
        note=note,
    )


def trained(model: DualEncoder, found: Found, settings: Settings) -> Row:
    """Numbers that dual trains, head included, against all weights of the image tower."""
    case = ("dual", settings.tasks[0], settings.shots[-1], settings.seeds[0])
    tower = sum(each.numel() for each in model.image_tower.parameters())
    size = found[case]["bytes"]
    note = (
        f"dual with the classifier of {CLASSES} classes; baseline: weights of the image tower; file {size:,.0f} bytes"
    )
    return Row(
        "unified_tuners.parameters_trained", found[case]["trainable"], unit="numbers", baseline=tower, n=1, note=note
    )


def code() -> None:
    """Read the code that decides the numbers."""
    code_of(*CODE, measured), code_of(*CODE, zero_shot)


def work(bench: Handle[DualEncoder], settings: Settings, part: str) -> None:
    """Every case, shared."""
    for case in mine(cases(settings), part):
        kept_case(bench.model, bench.kept, settings, case)
        print(*case, flush=True)


def rows_of(bench: Handle[DualEncoder], settings: Settings) -> list[Row]:
    """All claims."""
    return rows(bench.model, bench.kept, settings)


if __name__ == "__main__":
    opened = partial(dual_encoder, "unified-tuners")
    run(
        Benchmark(
            "unified-tuners",
            __file__,
            __doc__ or "",
            FULL,
            QUICK,
            work,
            rows_of,
            FULL.seeds,
            code,
            opened,
            MODEL,
        )
    )
