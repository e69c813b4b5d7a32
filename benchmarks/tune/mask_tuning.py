"""Mask tuning on few-shot tasks of the emoji world: gain over names alone, what gradient dropout keeps, time, memory, file.

    python -m benchmarks.tune.mask_tuning           # writes benchmarks/results/mask-tuning.json; two workers
    python -m benchmarks.tune.mask_tuning --quick   # one seed, few steps; prints only

Two tasks, of classes drawn anew by every seed: 50 known things in the style that the model never saw, and 20 things it never saw
(trained on in some styles, tested in others). Controls: random masks with as many zeros in each tensor, and masks learnt from
shuffled labels. Base to new: learnt from half of the classes, with and without gradient dropout, at equal steps and seeds. Each
training is kept under ``runs/mask-tuning``, so an interrupted benchmark goes on.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness.cache import Kept, code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, Handle, dual_encoder, mine, run
from benchmarks.harness.timing import side_by_side
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages, base_and_new
from photopic.learning.classifiers import TextClassifier
from photopic.learning.losses.distillation import Teacher, distillation
from photopic.learning.parameters.binary_mask import BinaryMask, Masked, maskable, packed_bits
from photopic.measure.base_to_new import base_to_new
from photopic.metrics.intervals import paired_bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.mask_tuning import MaskTuningConfig, mask_tuning

MODEL = "emoji-clip-vit"
STYLE, NOVEL = "held-out-style", "held-out-concepts"
CODE = ("photopic.tune.few_shot.mask_tuning", "photopic.data.emoji_tasks", "photopic.data.few_shot")
CLASSES = {STYLE: 50, NOVEL: 20}  # so many that names alone leave room, so few that some are learnt
BATCH = 16
REACH = 4.0  # all steps together, in distances from the start of M to its threshold: how much is switched off
FURTHER = 8.0  # the same for base to new, where what is forgotten has to show


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    shots: tuple[int, ...] = (4, 8, 16)
    steps: int = 300
    pairs: tuple[int, ...] = tuple(range(10, 18))  # seeds of base to new
    pair_steps: int = 100
    test: int = 12  # pictures a class to measure on
    rounds: int = 9  # of the timing


FULL = Settings()
QUICK = Settings((0,), (4,), 4, (10,), 4, 2, 2)
Case = tuple[str, str, int, int]  # kind, task, shots, seed


def cases(settings: Settings) -> list[Case]:
    """Everything that is trained."""
    most = settings.shots[-1]
    gains = [("mask", *each) for each in itertools.product((STYLE, NOVEL), settings.shots, settings.seeds)]
    controls = [("shuffled", STYLE, most, seed) for seed in settings.seeds]
    pairs = [(kind, STYLE, most, seed) for seed in settings.pairs for kind in ("pair-dropout", "pair-plain")]
    return [*gains, *controls, *pairs]


def config(settings: Settings, kind: str, seed: int) -> MaskTuningConfig:
    """The settings of one training."""
    is_pair = kind.startswith("pair")
    steps, reach = (settings.pair_steps, FURTHER) if is_pair else (settings.steps, REACH)
    dropout = 0.0 if kind == "pair-plain" else 1.0
    return MaskTuningConfig(steps=steps, reach=reach, batch=BATCH, dropout=dropout, seed=seed)


@cache
def task(name: str, seed: int, test: int) -> tuple[LabelledImages, LabelledImages]:
    """The pictures of a task."""
    return emoji_task(name, classes=CLASSES[name], test_per_class=test, seed=seed)


def accuracy(classifier: TextClassifier, data: LabelledImages) -> float:
    """Share of the pictures named right."""
    return float((classifier.logits(data.images).argmax(1).numpy() == data.labels).mean())


def measured(model: DualEncoder, settings: Settings, case: Case) -> dict[str, Any]:
    """One training and all numbers of it."""
    kind, name, shots, seed = case
    train, test = task(name, seed, settings.test)
    if kind.startswith("pair"):
        train = train.classes(base_and_new(train.names)[0])
    few = train.shots(shots, seed)
    if kind == "shuffled":
        few = replace(few, labels=np.random.default_rng(seed).permutation(few.labels))
    began = time.monotonic()
    edit = mask_tuning(model, FewShotTask(few), config=config(settings, kind, seed))
    tuned = TextClassifier(model, model.class_features(few.names), edit)
    found: dict[str, Any] = {"seconds": time.monotonic() - began, "share": 0.0, "file_vs_packed": 0.0}
    if kind.startswith("pair"):
        after, before = (base_to_new(model, test, edit) for edit in (tuned.edit, None))
        found |= {"base": after.base, "new": after.new, "mean": after.harmonic_mean}
        found |= {"zero": [before.base, before.new, before.harmonic_mean]}
    else:
        zero = TextClassifier(model, model.class_features(train.names))
        found |= {"zero": accuracy(zero, test), "tuned": accuracy(tuned, test)}
    if tuned.edit is not None:
        maskable_entries = sum(each.numel() for each in maskable(model).values())
        found |= {"share": masked(tuned.edit) / maskable_entries, "file_vs_packed": file_ratio(model, tuned.edit)}
        if kind == "mask":
            found["random"] = accuracy(replace(tuned, edit=random_mask(model, tuned.edit, seed)), test)
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


def kept_case(model: DualEncoder, kept: Kept, settings: Settings, case: Case) -> dict[str, Any]:
    """The numbers of one training, from where they are kept."""
    key = {
        "case": case,
        "config": config(settings, case[0], case[3]),
        "test": settings.test,
        "classes": CLASSES,
        "code": code_of(*CODE, measured, random_mask),
    }
    found: dict[str, Any] = kept.value(key, lambda: measured(model, settings, case))
    return found


def gain_rows(found: Mapping[Case, dict[str, Any]], settings: Settings) -> list[Row]:
    """Over names alone, by shots: both tasks together, and each."""
    rows = []
    for shots in settings.shots:
        for names, suffix in (((STYLE, NOVEL), ""), ((STYLE,), f".{STYLE}"), ((NOVEL,), f".{NOVEL}")):
            each = [found["mask", name, shots, seed] for name in names for seed in settings.seeds]
            value = paired_bootstrap([one["tuned"] for one in each], [one["zero"] for one in each])
            share = statistics.mean(one["share"] for one in each)
            zero, tuned = (statistics.mean(one[key] for one in each) for key in ("zero", "tuned"))
            note = f"accuracy {zero:.3f} to {tuned:.3f}, {share:.2%} of the masked tensors switched off; control: random masks"
            control = statistics.mean(one.get("random", one["zero"]) - one["zero"] for one in each)
            target = None if suffix else ">= 0.05"
            rows.append(
                Row(f"mask_tuning.gain.{shots}{suffix}", *value, target=target, control=control, n=len(each), note=note)
            )
    most = settings.shots[-1]
    shares = [one["share"] for case, one in found.items() if case[0] == "mask"]
    rows.append(
        Row("mask_tuning.share_masked", max(shares), target="<= 0.05", n=len(shares), note="the most of any training")
    )
    true = [found["mask", STYLE, most, seed]["tuned"] for seed in settings.seeds]
    false = [found["shuffled", STYLE, most, seed] for seed in settings.seeds]
    value = paired_bootstrap(true, [one["tuned"] for one in false])
    gain = statistics.mean(one["tuned"] - one["zero"] for one in false)
    note = "over masks learnt from shuffled labels, same shots and seeds; control: what those gain over names alone"
    return [
        *rows,
        Row("mask_tuning.gain_over_shuffled", *value, target="low > 0", control=gain, n=len(true), note=note),
    ]


def pair_rows(found: Mapping[Case, dict[str, Any]], settings: Settings) -> list[Row]:
    """Gradient dropout against plain mask tuning, base to new."""
    with_it, without = (
        [found[kind, STYLE, settings.shots[-1], seed] for seed in settings.pairs]
        for kind in ("pair-dropout", "pair-plain")
    )
    rows = []
    for claim, key, target in (("harmonic_mean_gain", "mean", "low > 0"), ("new_class_gain", "new", "low > 0")):
        value = paired_bootstrap([one[key] for one in with_it], [one[key] for one in without])
        said = [
            f"{name} {statistics.mean(one['base'] for one in each):.3f} / {statistics.mean(one['new'] for one in each):.3f}"
            for name, each in (("dropout", with_it), ("plain", without))
        ]
        before = [statistics.mean(one["zero"][place] for one in with_it) for place in (0, 1)]
        shares = [statistics.mean(one["share"] for one in each) for each in (with_it, without)]
        note = (
            f"base / new: {', '.join(said)}, names alone {before[0]:.3f} / {before[1]:.3f}; switched off {shares[0]:.2%} and "
            f"{shares[1]:.2%}"
        )
        baseline = statistics.mean(one[key] for one in without)
        rows.append(Row(f"mask_tuning.{claim}", *value, target=target, baseline=baseline, n=len(with_it), note=note))
    return rows


def steps_of(model: DualEncoder, data: LabelledImages) -> dict[str, Callable[[], Callable[[], object]]]:
    """One step on the same 32 pictures: plain fine-tuning of the masked tensors, mask tuning, the same with a kept teacher."""
    pixels, labels = model.preprocess(data.images[:32]), torch.from_numpy(data.labels[:32])
    rows, encoder = model.logit_scale * model.class_features(data.names), Masked(model)
    weights = maskable(model)
    main = partial(F.cross_entropy, target=labels)
    index = np.arange(len(pixels))

    def forward(tried: Mapping[str, Tensor]) -> Tensor:
        return encoder(pixels, tried) @ rows.mT

    def plain() -> Callable[[], object]:
        copies = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        adam = torch.optim.Adam(copies.values(), lr=1e-5)

        def step() -> None:
            adam.zero_grad(set_to_none=True)
            main(forward(copies)).backward()
            adam.step()

        return step

    def mask(teacher: Teacher) -> Callable[[], object]:
        state = BinaryMask(weights)

        def step() -> None:
            guide = partial(distillation, teacher=teacher(pixels, index))
            state.step(forward, main, guide, lr=1e-5)

        return step

    unscaled = model.class_features(data.names)
    kept = Teacher(model, unscaled, data.images[:32])
    return {"plain": plain, "mask": lambda: mask(Teacher(model, unscaled)), "kept": lambda: mask(kept)}


def cost_rows(model: DualEncoder, settings: Settings) -> list[Row]:
    """Time and memory of a step beside plain fine-tuning."""
    made = steps_of(model, task(STYLE, settings.seeds[0], settings.test)[0])
    seconds = side_by_side([make() for make in made.values()], settings.rounds, warm_up=1)
    plain, mask, kept = (np.array(each) for each in seconds)
    low, high = (float(each) for each in np.quantile(mask / plain, (0.025, 0.975)))
    ratio, cached = float(np.median(mask / plain)), float(np.median(kept / plain))
    note = (
        f"median and spread of rounds; 32 pictures, {np.median(mask):.3f} s against {np.median(plain):.3f} s; {cached:.2f} with a "
        "kept teacher, without augmentation"
    )
    rows = [
        Row(
            "mask_tuning.step_time_ratio",
            ratio,
            min(low, ratio),
            max(high, ratio),
            target="<= 2.2",
            n=settings.rounds,
            note=note,
        )
    ]
    base = sum(each.numel() * each.element_size() for each in model.network.parameters())
    peaks = {name: base + peak(make) for name, make in made.items() if name != "kept"}
    note = f"model, optimizer and all tensors of three steps: {peaks['mask'] / 2**20:.0f} MiB against {peaks['plain'] / 2**20:.0f}"
    value = peaks["mask"] / peaks["plain"]
    return [*rows, Row("mask_tuning.peak_memory_ratio", value, target="<= 1.3", note=note)]


def peak(make: Callable[[], Callable[[], object]]) -> int:
    """The most bytes held at once of what torch allocates while something is made and runs three times."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step = make()
        for _ in range(3):
            step()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(max(np.cumsum([event.nbytes() for event in events])))


def rows(model: DualEncoder, kept: Kept, settings: Settings) -> list[Row]:
    """All claims."""
    found = {case: kept_case(model, kept, settings, case) for case in cases(settings)}
    ratios = [one["file_vs_packed"] for one in found.values()]
    note = f"whole file with all that says what it is; {statistics.mean(ratios):.3f} on average"
    size = Row("mask_tuning.file_vs_packed", max(ratios), target="<= 1", n=len(ratios), note=note)
    return [*gain_rows(found, settings), *pair_rows(found, settings), *cost_rows(model, settings), size]


def code() -> None:
    """Read the code that decides the numbers."""
    code_of(*CODE, measured, random_mask)


def work(bench: Handle[DualEncoder], settings: Settings, part: str) -> None:
    """Every case, shared."""
    for case in mine(cases(settings), part):
        kept_case(bench.model, bench.kept, settings, case)
        print(*case, flush=True)


def rows_of(bench: Handle[DualEncoder], settings: Settings) -> list[Row]:
    """All claims."""
    return rows(bench.model, bench.kept, settings)


if __name__ == "__main__":
    opened = partial(dual_encoder, "mask-tuning")
    seeds = (*FULL.seeds, *FULL.pairs)
    run(
        Benchmark(
            "mask-tuning",
            __file__,
            __doc__ or "",
            FULL,
            QUICK,
            work,
            rows_of,
            seeds,
            code,
            opened,
            MODEL,
        )
    )
