"""Sparse image towers: how soon a search for a jackpot arrives, and how many weights each tensor should keep without a search.

    python -m benchmarks jackpots          # writes benchmarks/results/jackpots.json
    python -m benchmarks random-pruning    # writes benchmarks/results/random-pruning.json

Known things in the style that no bundled model saw. Jackpots: masks are searched from magnitudes and from random scores, each with
several budgets of steps and the schedule of its own; the claim is the share of the steps after which the first is as good as the
second with all of them. Control: searches from random scores against themselves. Random pruning: towers whose weights are shut at
random by densities that are uniform or Erdos-Renyi-kernel, trained on the same batches. Baseline: uniform. Control: the densities
of the kernel rule dealt out to other tensors. Pairs are those of a seed: shots, batches and masks. Each takes some eight minutes of
a quiet thread; steps and sparsity were chosen on a seed that is not among these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt

from benchmarks.edit.task_vectors import right
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.events import finished
from photopic.core.fit import fit
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.parameters.binary_mask import maskable
from photopic.metrics.intervals import bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.full import FullConfig, full_fine_tuning
from photopic.tune.few_shot.lottery_jackpots import LotteryJackpotsConfig, first_scores, lottery_jackpots, top_share
from photopic.tune.few_shot.random_pruning import (
    Pruned,
    RandomPruningConfig,
    layer_densities,
    random_mask,
    random_pruning,
)

SEED = 8_700_000
STARTS: tuple[Literal["magnitude", "random"], ...] = ("magnitude", "random")
PARTS = (12, 6, 3, 2, 1)  # of all steps, the budgets of the searches: one in so many
JACKPOTS = (
    Claim(
        "jackpots.epochs_ratio",
        "<= 0.334",
        "share of the steps after which magnitudes are as good as random scores after all; control: random scores",
    ),
    Claim(
        "jackpots.magnitude_overlap", "", "share of the final mask that the magnitudes chose too; baseline: by chance"
    ),
)
PRUNING = (
    Claim("random_pruning.erk_gain", "low > 0", "accuracy of kernel densities less uniform ones; control: dealt anew"),
    Claim("random_pruning.dense_gap", "", "accuracy of the dense tower less that of kernel densities"),
)


@dataclass(frozen=True)
class SparseTowerConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 5  # draws of shots, batches and masks
    classes: Annotated[int, Ge(2)] = 10  # things to tell apart
    shots: Annotated[int, Ge(1)] = 16  # pictures of each class to learn from
    test: Annotated[int, Ge(1)] = 20  # pictures of each class to measure on
    steps: Annotated[int, Ge(12)] = 60  # of learning, at most
    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.9  # share of the weights that is shut
    model: str = "emoji-clip-cnn"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """All trainings of one seed."""

    seed: int
    classes: int
    shots: int
    test: int
    steps: int
    sparsity: float


def task(case: Case) -> FewShotTask:
    """The shots and the pictures to measure on of a seed."""
    return FewShotTask(
        *emoji_task(
            "held-out-style",
            classes=case.classes,
            train_per_class=case.shots,
            test_per_class=case.test,
            seed=SEED + case.seed,
        )
    )


def searches(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, float]:
    """Accuracy by start and budget, and how much of the last mask the magnitudes chose."""
    model, data = bench.subject, task(case)
    test, train = data.test, FewShotTask(data.train)
    assert test is not None
    found = {}
    for start in STARTS:
        for part in PARTS:
            config = LotteryJackpotsConfig(
                steps=case.steps // part, sparsity=case.sparsity, start=start, seed=case.seed
            )
            edit = lottery_jackpots(model, train, config=config)
            found[f"{start} {part}"] = right(model, edit, test)
            if part == 1:
                found[f"{start} overlap"] = overlap(model, edit, case.sparsity)
    return found


def overlap(model: DualEncoder, edit: Edit, sparsity: float) -> float:
    """The share of what an edit leaves that the magnitudes alone leave too."""
    (part,), generator = edit.of(ZeroedWeights), torch.Generator()
    kept = shared = 0
    for name, weight in maskable(model, "all").items():
        mask = torch.ones(weight.numel(), dtype=torch.bool).index_fill_(0, part.indices[name], False)
        first = top_share(first_scores(weight, "magnitude", generator), 1 - sparsity)
        kept, shared = kept + int(mask.sum()), shared + int((mask & first).sum())
    return shared / kept


def prunings(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, float]:
    """Accuracy of towers whose weights are shut at random, and of the dense one."""
    model, data = bench.subject, task(case)
    test, train = data.test, FewShotTask(data.train)
    assert test is not None
    config = RandomPruningConfig(steps=case.steps, sparsity=case.sparsity, seed=case.seed)
    edits = {rule: random_pruning(model, train, config=replace(config, densities=rule)) for rule in ("uniform", "erk")}
    edits["dealt"] = dealt_anew(model, train.train, config)
    dense = FullConfig(steps=case.steps, lr=config.lr, seed=case.seed)
    edits["dense"] = full_fine_tuning(model, train, config=dense)
    return {name: right(model, edit, test) for name, edit in {**edits, "base": None}.items()}


def dealt_anew(model: DualEncoder, data: LabelledImages, config: RandomPruningConfig) -> Edit:
    """A tower pruned by the kernel rule's densities, each at another tensor, and as sparse as before."""
    shapes = {name: each.shape for name, each in maskable(model, "all").items()}
    rng, density = np.random.default_rng((SEED, config.seed)), 1 - config.sparsity
    shares = rng.permutation(list(layer_densities(shapes, density, "erk").values()))
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    densities = scaled_to(dict(zip(shapes, shares.tolist(), strict=True)), sizes, density)
    generator = torch.Generator().manual_seed(config.seed)
    masks = {name: random_mask(sizes[name], each, generator) for name, each in densities.items()}
    learner = Pruned(model, data, config, masks, model.class_features(data.names).to(model.device))
    finished(fit(learner, config.steps, run=None))
    names = [name for part in learner.parts() for name in part.names()]
    return Edit(learner.parts(), model.fingerprint(*dict.fromkeys(names)))


def scaled_to(densities: Mapping[str, float], sizes: Mapping[str, int], density: float) -> dict[str, float]:
    """Densities times one factor, none above 1, so that so much of all is kept."""
    low, high = 0.0, 1 / min(densities.values())
    for _ in range(60):  # halved until the factor is found
        factor = (low + high) / 2
        kept = sum(min(1.0, factor * densities[name]) * size for name, size in sizes.items())
        low, high = (factor, high) if kept < density * sum(sizes.values()) else (low, factor)
    return {name: min(1.0, factor * each) for name, each in densities.items()}


def cases(config: SparseTowerConfig) -> list[Case]:
    """One a seed."""
    return [
        Case(seed, config.classes, config.shots, config.test, config.steps, config.sparsity)
        for seed in range(config.seeds)
    ]


def share_needed(found: Mapping[str, float], start: str) -> float:
    """The least share of the steps with which a start is as good as random scores with all; twice all where none is."""
    return min((1 / part for part in PARTS if found[f"{start} {part}"] >= found["random 1"]), default=2.0)


def jackpot_rows(bench: Bench[SparseTowerConfig, DualEncoder]) -> Iterator[Row]:
    """How soon, and how much of the magnitudes is left in the end."""
    found = [bench.found(case) for case in bench.cases]
    ratios, control = ([share_needed(each, start) for each in found] for start in STARTS)
    curves = "; ".join(
        f"{start} "
        + ", ".join(f"1/{part} {np.mean([each[f'{start} {part}'] for each in found]):.3f}" for part in PARTS)
        for start in STARTS
    )
    note = f"accuracy by share of {bench.config.steps} steps: {curves}; chance {1 / bench.config.classes:.2f}"
    yield row(
        "jackpots.epochs_ratio",
        bootstrap(ratios, seed=SEED),
        n=len(found),
        baseline=1.0,
        control=float(np.mean(control)),
        note=note,
    )
    shared = [each["magnitude overlap"] for each in found]
    yield row(
        "jackpots.magnitude_overlap", bootstrap(shared, seed=SEED), n=len(found), baseline=1 - bench.config.sparsity
    )


def pruning_rows(bench: Bench[SparseTowerConfig, DualEncoder]) -> Iterator[Row]:
    """What the kernel rule gains over uniform densities, and what is missing to the dense tower."""
    found = [bench.found(case) for case in bench.cases]
    over = {name: np.array([each[name] for each in found]) for name in found[0]}
    shares = ", ".join(f"{name} {value.mean():.3f}" for name, value in over.items())
    yield row(
        "random_pruning.erk_gain",
        bootstrap(over["erk"] - over["uniform"], seed=SEED),
        n=len(found),
        baseline=float(over["uniform"].mean()),
        control=float((over["dealt"] - over["uniform"]).mean()),
        note=f"{shares}; {bench.config.sparsity:.0%} shut",
    )
    gap = bootstrap(over["dense"] - over["erk"], seed=SEED)
    yield row("random_pruning.dense_gap", gap, n=len(found), baseline=float((over["dense"] - over["uniform"]).mean()))


def subject(config: SparseTowerConfig, cache: Any) -> DualEncoder:
    """The bundled dual encoder."""
    return DualEncoder.load(config.model, "cpu")


FULL, QUICK = SparseTowerConfig(), SparseTowerConfig(seeds=1, classes=3, shots=2, test=2, steps=12)
PRUNED = replace(FULL, steps=100, sparsity=0.8)
SEEDS = (0, 1, 2, 3, 4, SEED)
BENCHMARKS = (
    Benchmark("jackpots", __doc__, FULL, QUICK, JACKPOTS, jackpot_rows, cases, searches, open=subject, seeds=SEEDS),
    Benchmark(
        "random-pruning", __doc__, PRUNED, QUICK, PRUNING, pruning_rows, cases, prunings, open=subject, seeds=SEEDS
    ),
)
