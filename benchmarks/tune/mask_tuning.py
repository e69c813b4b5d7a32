"""Mask tuning on few-shot tasks of the emoji world: gain over names alone, what gradient dropout keeps, time, memory, file.

    python -m benchmarks mask-tuning           # writes benchmarks/results/mask-tuning.json

Two tasks, of classes drawn anew by every seed: 50 known things in the style that the model never saw, and 20 things it never saw
(trained on in some styles, tested in others). Controls: random masks with as many zeros in each tensor, and masks learnt from
shuffled labels. Base to new: learnt from half of the classes, with and without gradient dropout, at equal steps and seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.tune.mask_costs import cost_rows
from photopic.core.config import Config
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages, base_and_new
from photopic.learning.classifiers import TextClassifier
from photopic.learning.parameters.binary_mask import maskable, packed_bits
from photopic.measure.base_to_new import base_to_new
from photopic.metrics.intervals import paired_bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.mask_tuning import MaskTuningConfig, mask_tuning

STYLE, NOVEL = "held-out-style", "held-out-concepts"
CLASSES = {STYLE: 50, NOVEL: 20}  # so many that names alone leave room, so few that some are learnt
REACH = 4.0  # all steps together, in distances from the start of M to its threshold: how much is switched off
FURTHER = 8.0  # the same for base to new, where what is forgotten has to show
CLAIMS = (
    Claim("mask_tuning.gain.*", ">= 0.05", "accuracy over that of names alone, both tasks; control: random masks"),
    Claim("mask_tuning.gain.*.held-out-*", "", "accuracy over that of names alone, one task; control: random masks"),
    Claim("mask_tuning.share_masked", "<= 0.05", "the most of any training"),
    Claim(
        "mask_tuning.gain_over_shuffled", "low > 0", "over masks learnt from shuffled labels; control: what those gain"
    ),
    Claim("mask_tuning.harmonic_mean_gain", "low > 0", "base to new, gradient dropout minus without"),
    Claim("mask_tuning.new_class_gain", "low > 0", "accuracy on new classes, gradient dropout minus without"),
    Claim("mask_tuning.step_time_ratio", "<= 2.2", "a step over one of plain fine-tuning, 32 pictures"),
    Claim("mask_tuning.peak_memory_ratio", "<= 1.3", "model, optimizer and all tensors of three steps"),
    Claim("mask_tuning.file_vs_packed", "<= 1", "whole file with all that says what it is, over packed bits"),
)


@dataclass(frozen=True)
class MaskConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of classes and shots
    shots: tuple[int, ...] = (4, 8, 16)  # pictures of each class
    steps: Annotated[int, Ge(1)] = 300  # of learning
    pairs: tuple[int, ...] = tuple(range(10, 18))  # seeds of base to new
    pair_steps: Annotated[int, Ge(1)] = 100  # of learning half of the classes
    test: Annotated[int, Ge(1)] = 12  # pictures of each class to measure on
    rounds: Annotated[int, Ge(1)] = 9  # of the timing
    model: str = "emoji-clip-vit"  # a bundled name or a folder


QUICK = MaskConfig((0,), (4,), 4, (10,), 4, 2, 2)


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        kind: ``mask``; ``shuffled`` labels; ``pair-dropout`` and ``pair-plain``, which learn from half of the classes.
    """

    kind: str
    task: str
    shots: int
    seed: int
    steps: int
    test: int

    @property
    def config(self) -> MaskTuningConfig:
        """How it is trained."""
        reach = FURTHER if self.kind.startswith("pair") else REACH
        dropout = 0.0 if self.kind == "pair-plain" else 1.0
        return MaskTuningConfig(steps=self.steps, reach=reach, batch=16, dropout=dropout, seed=self.seed)


def gain_cases(config: MaskConfig, name: str, shots: int) -> list[Case]:
    """The trainings of a task with some shots."""
    return [Case("mask", name, shots, seed, config.steps, config.test) for seed in config.seeds]


def control_cases(config: MaskConfig) -> list[Case]:
    """The trainings from shuffled labels, with the most shots."""
    return [replace(each, kind="shuffled") for each in gain_cases(config, STYLE, config.shots[-1])]


def pair_cases(config: MaskConfig, kind: str) -> list[Case]:
    """The trainings from half of the classes."""
    return [Case(kind, STYLE, config.shots[-1], seed, config.pair_steps, config.test) for seed in config.pairs]


def cases(config: MaskConfig) -> list[Case]:
    """Everything that is trained."""
    gains = [each for pair in itertools.product(CLASSES, config.shots) for each in gain_cases(config, *pair)]
    return [*gains, *control_cases(config), *pair_cases(config, "pair-dropout"), *pair_cases(config, "pair-plain")]


@cache
def task(name: str, seed: int, test: int) -> tuple[LabelledImages, LabelledImages]:
    """The pictures of a task."""
    return emoji_task(name, classes=CLASSES[name], test_per_class=test, seed=seed)


def accuracy(classifier: TextClassifier, data: LabelledImages) -> float:
    """Share of the pictures named right."""
    return float((classifier.logits(data.images).argmax(1).numpy() == data.labels).mean())


def measure(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, Any]:
    """One training and all numbers of it."""
    model, (train, test) = bench.subject, task(case.task, case.seed, case.test)
    if case.kind.startswith("pair"):
        train = train.classes(base_and_new(train.names)[0])
    few = train.shots(case.shots, case.seed)
    if case.kind == "shuffled":
        few = replace(few, labels=np.random.default_rng(case.seed).permutation(few.labels))
    edit = mask_tuning(model, FewShotTask(few), config=case.config)
    tuned = TextClassifier(model, model.class_features(few.names), edit)
    found: dict[str, Any] = {"share": 0.0, "file_vs_packed": 0.0}
    if case.kind.startswith("pair"):
        after, before = (base_to_new(model, test, each) for each in (tuned.edit, None))
        found |= {"base": after.base, "new": after.new, "mean": after.harmonic_mean}
        found |= {"zero": [before.base, before.new, before.harmonic_mean]}
    else:
        zero = TextClassifier(model, model.class_features(train.names))
        found |= {"zero": accuracy(zero, test), "tuned": accuracy(tuned, test)}
    if tuned.edit is not None:
        maskable_entries = sum(each.numel() for each in maskable(model).values())
        found |= {"share": masked(tuned.edit) / maskable_entries, "file_vs_packed": file_ratio(model, tuned.edit)}
        if case.kind == "mask":
            found["random"] = accuracy(replace(tuned, edit=random_mask(model, tuned.edit, case.seed)), test)
    return found


def masked(edit: Edit) -> int:
    """Weights an edit switches off."""
    return sum(part.count for part in edit.parts if isinstance(part, ZeroedWeights))


def file_ratio(model: DualEncoder, edit: Edit) -> float:
    """Bytes of the whole file, per byte of the bits of all tensors that were trained."""
    packed = packed_bits({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in maskable(model).items()})
    return len(edit_file.to_bytes(edit)) / sum(map(len, packed.values()))


def random_mask(model: DualEncoder, edit: Edit, seed: int) -> Edit:
    """A mask with as many zeros in each tensor, anywhere."""
    (part,) = edit.parts
    assert isinstance(part, ZeroedWeights)
    generator = torch.Generator().manual_seed(seed)
    positions = {
        name: torch.randperm(torch.Size(edit.base.shapes[name]).numel(), generator=generator)[: len(found)]
        .sort()
        .values
        for name, found in part.indices.items()
    }
    return Edit((ZeroedWeights(positions),), edit.base)


def averages(found: list[dict[str, Any]], key: str) -> float:
    """Mean of one number over trainings."""
    return mean(one[key] for one in found)


def gain_rows(bench: Bench[MaskConfig, DualEncoder]) -> Iterator[Row]:
    """Over names alone, by shots, both tasks together and each; and over masks of shuffled labels."""
    config, shares = bench.config, []
    for shots in config.shots:
        for names, suffix in (((STYLE, NOVEL), ""), ((STYLE,), f".{STYLE}"), ((NOVEL,), f".{NOVEL}")):
            found = [bench.found(case) for name in names for case in gain_cases(config, name, shots)]
            gain = paired_bootstrap([one["tuned"] for one in found], [one["zero"] for one in found])
            zero, tuned, share = (averages(found, key) for key in ("zero", "tuned", "share"))
            note = f"accuracy {zero:.3f} to {tuned:.3f}, {share:.2%} of the masked tensors switched off"
            control = mean(one.get("random", one["zero"]) - one["zero"] for one in found)
            yield row(f"mask_tuning.gain.{shots}{suffix}", gain, control=control, n=len(found), note=note)
            shares += [one["share"] for one in found if not suffix]
    yield row("mask_tuning.share_masked", max(shares), n=len(shares))
    true = [bench.found(case)["tuned"] for case in gain_cases(config, STYLE, config.shots[-1])]
    false = [bench.found(case) for case in control_cases(config)]
    gain, control = (
        paired_bootstrap(true, [one["tuned"] for one in false]),
        averages(false, "tuned") - averages(false, "zero"),
    )
    yield row("mask_tuning.gain_over_shuffled", gain, control=control, n=len(true))


def pair_rows(bench: Bench[MaskConfig, DualEncoder]) -> Iterator[Row]:
    """Gradient dropout against plain mask tuning, base to new."""
    kinds = {
        kind: [bench.found(case) for case in pair_cases(bench.config, f"pair-{kind}")] for kind in ("dropout", "plain")
    }
    with_it, without = kinds.values()
    said = [f"{kind} {averages(each, 'base'):.3f} / {averages(each, 'new'):.3f}" for kind, each in kinds.items()]
    before = [mean(one["zero"][place] for one in with_it) for place in (0, 1)]
    note = (
        f"base / new: {', '.join(said)}, names alone {before[0]:.3f} / {before[1]:.3f}; switched off "
        f"{averages(with_it, 'share'):.2%} and {averages(without, 'share'):.2%}"
    )
    for claim, key in (("harmonic_mean_gain", "mean"), ("new_class_gain", "new")):
        gain = paired_bootstrap([one[key] for one in with_it], [one[key] for one in without])
        yield row(f"mask_tuning.{claim}", gain, baseline=averages(without, key), n=len(with_it), note=note)


def rows(bench: Bench[MaskConfig, DualEncoder]) -> Iterator[Row]:
    """All claims."""
    yield from gain_rows(bench)
    yield from pair_rows(bench)
    config = bench.config
    yield from cost_rows(bench.subject, task(STYLE, config.seeds[0], config.test)[0], config.rounds)
    ratios = [bench.found(case)["file_vs_packed"] for case in bench.cases]
    yield row("mask_tuning.file_vs_packed", max(ratios), n=len(ratios), note=f"{mean(ratios):.3f} on average")


BENCHMARKS = (
    Benchmark(
        "mask-tuning", __doc__, MaskConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model), seeds=(*MaskConfig().seeds, *MaskConfig().pairs),
    ),
)  # fmt: skip
