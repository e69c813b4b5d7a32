"""Task vectors taken apart: forgetting with one number a tensor (aTLAS), and sparse differences that add (LT-SFT).

    python -m benchmarks task-vectors            # writes benchmarks/results/task-vectors.json

Negation: a dual encoder is fine-tuned on things in one style; its task vector is scaled so that these are forgotten while as many
of the control, other things in another style, are named right. Baseline: one number for the whole vector, the best of a grid at no
less accuracy on the control; negative control: the same numbers dealt out to the tensors at random. Addition: a task learnt in
style A, the difference that style B makes on other things added, on the task in style B; negative control: that of a third style.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.edit.merging import SEED, STYLES, pictures, unknown
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.edits import DenseDelta, Edit, compose
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.edit.merging.anisotropic_scaling import AnisotropicScalingConfig, anisotropic_scaling
from photopic.learning.classifiers import TextClassifier
from photopic.metrics.intervals import bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.full import FullConfig, full_fine_tuning
from photopic.tune.few_shot.sparse_fine_tuning import SparseFineTuningConfig, sparse_fine_tuning

THIRD = "twemoji"
GRID = tuple(round(-0.1 * step, 1) for step in range(31))  # of the one number, 0 to -3
CLAIMS = (
    Claim(
        "atlas.negation_gain",
        "low > 0",
        "forgotten beyond the best single number, control no less; control: numbers dealt anew",
    ),
    Claim("atlas.control_kept", "", "accuracy on the control after forgetting, less the base's"),
    Claim(
        "lt_sft.transfer_gain",
        "low > 0",
        "task in style B with the difference of B, less without; control: a third style's",
    ),
    Claim("lt_sft.interference", "low > 0", "what an unrelated difference costs, dense less sparse of the same norm"),
)


@dataclass(frozen=True)
class TaskVectorConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 5  # draws of things and pictures
    classes: Annotated[int, Ge(2)] = 20  # things of a task
    steps: Annotated[int, Ge(1)] = 40  # of fine-tuning
    shots: Annotated[int, Ge(1)] = 6  # pictures of each class to learn from
    test: Annotated[int, Ge(1)] = 8  # pictures of each class to measure on
    model: str = "emoji-clip-vit"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """All trainings of one seed."""

    seed: int
    classes: int
    steps: int
    shots: int
    test: int


def right(model: DualEncoder, edit: Edit | None, data: LabelledImages) -> float:
    """The share named right by the names of the classes."""
    logits = TextClassifier(model, model.class_features(data.names), edit).logits(data.images)
    return float((logits.argmax(1).numpy() == data.labels).mean())


def scaled(edit: Edit, numbers: dict[str, float]) -> Edit:
    """A task vector with a number for each tensor; what gets 0 is left out."""
    deltas = edit.of(DenseDelta)[0].deltas
    kept = {name: numbers[name] * each for name, each in deltas.items() if numbers[name]}
    return Edit((DenseDelta(kept),), edit.base)


def negation(model: DualEncoder, case: Case) -> dict[str, float]:
    """What is left of the target, and of the control, by aTLAS, by one number and by numbers dealt anew."""
    names = unknown(2 * case.classes, case.seed)
    sides = [(names[::2], STYLES[0]), (names[1::2], STYLES[1])]  # what to forget, what to keep
    train = [pictures(each, style, case.shots, (case.seed, 10 + place)) for place, (each, style) in enumerate(sides)]
    test = [pictures(each, style, case.test, (case.seed, 20 + place)) for place, (each, style) in enumerate(sides)]
    vector = full_fine_tuning(model, FewShotTask(train[0]), config=FullConfig(steps=case.steps, seed=case.seed))
    config = AnisotropicScalingConfig(objective="forget", steps=case.steps, balance=2.0, seed=case.seed)
    target, kept = (FewShotTask(each) for each in train)
    edit = anisotropic_scaling([vector], model=model, data=target, control=kept, config=config)
    learnt = {name: numbers[0] for name, numbers in edit.provenance["coefficients"].items()}
    dealt = dict(zip(learnt, np.random.default_rng((SEED, case.seed)).permutation(list(learnt.values())), strict=True))
    ways = {"base": None, "atlas": edit, "dealt": scaled(vector, dealt)}
    found = {f"{way} {side}": right(model, each, test[side]) for way, each in ways.items() for side in (0, 1)}
    # the single number may choose on the test pictures, which favours it
    single = [scaled(vector, dict.fromkeys(learnt, number)) if number else None for number in GRID]
    both = [(right(model, each, test[0]), right(model, each, test[1])) for each in single]
    return found | {"single 0": min(target for target, control in both if control >= min(found["atlas 1"], both[0][1]))}


def addition(model: DualEncoder, case: Case) -> dict[str, float]:
    """Accuracy of a task in style B with and without what styles add, and what an unrelated difference costs."""
    names = unknown(2 * case.classes, case.seed)
    task, others = names[::2], names[1::2]
    (first, second), third = STYLES, THIRD
    config = SparseFineTuningConfig(steps=case.steps, seed=case.seed)
    train = {
        "task": pictures(task, first, case.shots, (case.seed, 30)),
        "style": pictures(others, second, case.shots, (case.seed, 31)),
        "other": pictures(others, third, case.shots, (case.seed, 32)),
    }
    sparse = {name: sparse_fine_tuning(model, FewShotTask(each), config=config) for name, each in train.items()}
    test = pictures(task, second, case.test, (case.seed, 33))
    own = pictures(task, first, case.test, (case.seed, 34))
    found = {"task": right(model, sparse["task"], test)}
    found |= {
        way: right(model, compose(sparse["task"], sparse[way], overlap="sum"), test) for way in ("style", "other")
    }
    # interference: dense deltas of the same two tasks, the second scaled to the norm of its sparse twin
    dense = {
        name: full_fine_tuning(model, FewShotTask(train[name]), config=FullConfig(steps=case.steps, seed=case.seed))
        for name in ("task", "other")
    }
    factor = norm(sparse["other"]) / norm(dense["other"])
    pairs = {"sparse": (sparse["task"], sparse["other"], 1.0), "dense": (dense["task"], dense["other"], factor)}
    for way, (alone, more, weight) in pairs.items():
        both = compose(alone, more, overlap="sum", weights=(1.0, weight))
        found[f"cost {way}"] = right(model, alone, own) - right(model, both, own)
    return found


def norm(edit: Edit) -> float:
    """Of all that it adds."""
    writes = [part.change(name) for part in edit.weight_parts for name in part.names()]
    values = [write.values() if callable(write.values) else write.values for write in writes]
    return float(sum(float(each.double().square().sum()) for each in values if each is not None) ** 0.5)


def measure(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, dict[str, float]]:
    """Both halves of one seed."""
    return {"negation": negation(bench.subject, case), "addition": addition(bench.subject, case)}


def cases(config: TaskVectorConfig) -> list[Case]:
    """One a seed."""
    return [Case(seed, config.classes, config.steps, config.shots, config.test) for seed in range(config.seeds)]


def rows(bench: Bench[TaskVectorConfig, DualEncoder]) -> Iterator[Row]:
    """All claims, from what the workers kept; paired by seed."""
    found = [bench.found(case) for case in bench.cases]
    half = {kind: {key: np.array([each[kind][key] for each in found]) for key in found[0][kind]} for kind in found[0]}
    negated, added = half["negation"], half["addition"]
    count, control = len(found), float((negated["single 0"] - negated["dealt 0"]).mean())
    shares = ", ".join(f"{key} {value.mean():.3f}" for key, value in negated.items())
    gain = bootstrap(negated["single 0"] - negated["atlas 0"], seed=SEED)
    yield row("atlas.negation_gain", gain, n=count, control=control, note=f"0 target, 1 control: {shares}")
    yield row("atlas.control_kept", bootstrap(negated["atlas 1"] - negated["base 1"], seed=SEED), n=count)
    transfer, beside = (
        bootstrap(added["style"] - added["task"], seed=SEED),
        float((added["other"] - added["task"]).mean()),
    )
    yield row("lt_sft.transfer_gain", transfer, n=count, baseline=float(added["task"].mean()), control=beside)
    cost = bootstrap(added["cost dense"] - added["cost sparse"], seed=SEED)
    yield row("lt_sft.interference", cost, n=count, baseline=float(added["cost dense"].mean()))


QUICK = replace(TaskVectorConfig(), seeds=1, classes=3, steps=2, shots=2, test=2)
BENCHMARKS = (
    Benchmark(
        "task-vectors", __doc__, TaskVectorConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model, "cpu"), seeds=(0, 1, 2, 3, 4, SEED),
    ),
)  # fmt: skip
