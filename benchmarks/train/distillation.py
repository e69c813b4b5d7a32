"""Can any classifier teach any other one something, and who has to decide what?

    python -m benchmarks transfer        # writes benchmarks/results/transfer.json

Protocol, written before the run. Six bundled classifiers (two architectures, two sizes, and a second seed of the two small ones):
all 30 ordered pairs of student and teacher, so that half of the teachers are the weaker ones. Each learns from the same 2,500
pictures of the training pairs, as they are, in 40 steps of 64 and at 1e-4; these were chosen on two pairs by the accuracy on the
held-out *style*. What is measured is the accuracy on the 725 held-out *renderings* (a known concept in a style it was not seen in),
which nothing was chosen by and nobody was taught with: the transfer delta is the student's after minus before.

- arms: data partition by labels (the paper's) and by confidence (which needs none), plain KL divergence (the baseline), KL with
  weight interpolation (momentum 0.98), and as control a partition by lot: as many pictures for the teacher, but not those it is
  surer of.
- ``transfer.positive_share``: share of the pairs with a delta of 0 or more, partition by labels; Wilson's interval of the pairs.
- ``transfer.share_gain``: that share minus plain KL's, pairs resampled.
- ``transfer.delta``: mean delta in accuracy, partition by labels; pairs resampled, those of one student together.
- ``transfer.positive_flips``: the smallest share of pictures, over all pairs, that a teacher has right and its student wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.data import renderings
from photopic.data.few_shot import LabelledImages
from photopic.measure.flips import flips
from photopic.metrics.intervals import bootstrap, paired_bootstrap, wilson
from photopic.models.classifier import Classifier
from photopic.train.distillation import knowledge_transfer as transfer

MODELS = tuple(
    f"emoji-{each}" for each in ("resnet-64-0", "resnet-256-0", "vit-64-0", "vit-256-0", "resnet-64-1", "vit-64-1")
)
ARMS = ("labels", "confidence", "none", "interpolation", "lot")
CLAIMS = (
    Claim("transfer.positive_share", ">= 0.8", "of ordered pairs, delta >= 0: partition by labels"),
    Claim("transfer.positive_share_confidence", ">= 0.8", "the same, partition by confidence"),
    Claim("transfer.positive_share_weaker", ">= 0.8", "the same by labels, teachers that are worse than their student"),
    Claim("transfer.positive_share_interpolation", "", "the same, KL with weight interpolation"),
    Claim("transfer.share_gain", "low > 0", "positive share: partition by labels minus plain KL"),
    Claim("transfer.delta", "low > 0", "accuracy of the student after minus before, partition by labels"),
    Claim("transfer.positive_flips", "> 0", "smallest share, over pairs, that a teacher alone has right"),
)


@dataclass(frozen=True)
class TransferConfig(Config):
    """How much is measured."""

    models: tuple[str, ...] = MODELS  # classifiers, each teacher and student of each other
    pictures: Annotated[int, Ge(1)] = 2500  # to learn from
    steps: Annotated[int, Ge(1)] = 40  # of each arm
    lr: Annotated[float, Gt(0)] = 1e-4  # of all arms


@dataclass(frozen=True)
class Case:
    """One student taught by one teacher."""

    student: str
    teacher: str
    arm: str
    pictures: int
    steps: int
    lr: float


def cases(config: TransferConfig) -> list[Case]:
    """Every pair with every arm."""
    pairs = permutations(config.models, 2)
    return [Case(*pair, arm, config.pictures, config.steps, config.lr) for pair in pairs for arm in ARMS]


@cache
def pictures(kind: str, count: int = 0) -> LabelledImages:
    """The held-out renderings, or some training pairs."""
    pairs, names = renderings.held_out_pairs(), renderings.classes()
    if kind == "train":
        known = renderings.training_pairs()
        pairs = tuple(known[place] for place in np.random.default_rng(0).permutation(len(known))[:count])
    number = {name: place for place, name in enumerate(names)}
    return LabelledImages(renderings.pictures(pairs), np.array([number[name] for name, _ in pairs]), names)


@cache
def loaded(name: str) -> Classifier:
    """A bundled classifier."""
    return Classifier.load(name)


def taught(case: Case) -> Any:
    """What an arm learns."""
    model, teacher, data = loaded(case.student), loaded(case.teacher), pictures("train", case.pictures)
    how: dict[str, Any] = {"steps": case.steps, "lr": case.lr}
    if case.arm == "lot":
        return by_lot(model, teacher, data, how)
    if case.arm == "interpolation":
        how |= {"partition": "none", "momentum": 0.98}
    else:
        how["partition"] = case.arm
    return transfer.knowledge_transfer(model, teacher, data, config=transfer.KnowledgeTransferConfig(**how))


def by_lot(model: Classifier, teacher: Classifier, data: LabelledImages, how: dict[str, Any]) -> Any:
    """The control: the teacher gets as many pictures of a batch as by labels, others."""
    rng, rule = np.random.default_rng(0), transfer.partition

    def shuffled(own: Any, taught: Any, how: Any, labels: Any = None) -> Any:
        found = rule(own, taught, "labels", labels)
        return found[torch.from_numpy(rng.permutation(len(found)))]

    transfer.partition = shuffled
    try:
        config = transfer.KnowledgeTransferConfig(partition="labels", **how)
        return finished(transfer.knowledge_transfer.body(model, teacher, data, config=config))
    finally:
        transfer.partition = rule


def measure(bench: Bench[TransferConfig, Any], case: Case) -> dict[str, float]:
    """Accuracies before and after, and what the teacher alone has right before."""
    model, held = loaded(case.student), pictures("held out")
    before = flips(model, loaded(case.teacher), held).values
    edit = taught(case)
    with model.edits.applied(edit):
        after = float(np.mean(model.logits(held.images).argmax(1).numpy() == held.labels))
    found = {"before": before["accuracy"], "teacher": before["other_accuracy"], "positive": before["positive"]}
    return found | {"after": after, "taught": edit.provenance["taught"]}


def rows(bench: Bench[TransferConfig, Any]) -> Iterator[Row]:
    """All claims."""
    found = {arm: [(case, bench.found(case)) for case in bench.cases if case.arm == arm] for arm in ARMS}
    deltas = {arm: np.array([each["after"] - each["before"] for _, each in found[arm]]) for arm in ARMS}
    shares = {arm: float((deltas[arm] >= 0).mean()) for arm in ARMS}
    count, students = len(deltas["labels"]), [case.student for case, _ in found["labels"]]
    weaker = np.array([each["teacher"] < each["before"] for _, each in found["labels"]])
    note = f"{count} ordered pairs, {len(pictures('held out'))} held-out renderings"

    def share(claim: str, arm: str, chosen: np.ndarray | None = None) -> Row:
        of = [deltas[each] >= 0 if chosen is None else (deltas[each] >= 0)[chosen] for each in (arm, "none", "lot")]
        baseline, control = (float(each.mean()) if len(each) else None for each in of[1:])
        value = wilson(int(of[0].sum()), len(of[0])) if len(of[0]) else None
        return row(claim, value, baseline=baseline, control=control, n=len(of[0]), note=note)

    yield share("transfer.positive_share", "labels")
    yield share("transfer.positive_share_confidence", "confidence")
    yield share("transfer.positive_share_weaker", "labels", weaker)
    yield share("transfer.positive_share_interpolation", "interpolation")
    gain = paired_bootstrap((deltas["labels"] >= 0).astype(float), (deltas["none"] >= 0).astype(float))
    yield row("transfer.share_gain", gain, baseline=shares["none"], control=shares["lot"] - shares["none"], n=count)
    delta, baseline, control = bootstrap(deltas["labels"], groups=students), deltas["none"].mean(), deltas["lot"].mean()
    note = f"by confidence {deltas['confidence'].mean():.4f}, interpolation {deltas['interpolation'].mean():.4f}"
    yield row("transfer.delta", delta, baseline=float(baseline), control=float(control), n=count, note=note)
    yield row("transfer.positive_flips", min(each["positive"] for _, each in found["labels"]), n=count)


BENCHMARKS = (
    Benchmark(
        "transfer",
        __doc__,
        TransferConfig(),
        TransferConfig(MODELS[:2], 100, 2),
        CLAIMS,
        rows,
        cases,
        measure,
        seeds=(0,),
    ),
)
