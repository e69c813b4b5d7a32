"""Losses of a subject under its concept neurons, under another's, and under random and anti-selected masks of the same sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.harness.subjects import TOKEN, JudgedModel, reference, shut
from photopic.core.events import finished
from photopic.data import splits
from photopic.learning.losses.denoising import ConceptLoss
from photopic.learning.parameters.soft_mask import WeightMask
from photopic.learning.subject.examples import subject
from photopic.learning.subject.new_token import new_rows
from photopic.learning.subject.preservation import preservation_examples
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions, with_zeros

UNSEEN = 909  # seed of the preservation scenes losses are measured on
NONE = torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Gate:
    """Losses of one search."""

    name: str
    search: ConceptNeuronsConfig
    problems: int
    randoms: int
    draws: int


@dataclass(frozen=True)
class Cross:
    """Losses of a subject under another one's mask."""

    name: str
    other: str
    search: ConceptNeuronsConfig
    problems: int


def loss_of(judge: JudgedModel, name: str, batch: int = 8) -> ConceptLoss:
    """The loss of a subject with preservation scenes that no search saw."""
    given, noun = reference(name), splits.SUBJECTS[name]
    kept = finished(preservation_examples(judge.model, noun, kind="scenes", count=60, seed=UNSEEN))
    rows = new_rows(judge.model, TOKEN, noun, start=ConceptNeuronsConfig().token_start)
    chosen = subject(judge.model, given, noun=noun, rows=rows, preserved=kept)
    return chosen.loss(judge.model, judge.base, prior_weight=1.0, batch=batch, seed=0)


def anti_selected(
    loss: ConceptLoss, weights: Mapping[str, torch.Tensor], positions: Mapping[str, torch.Tensor], draws: int
) -> dict[str, torch.Tensor]:
    """As many positions of every tensor, those with the most negative mean theta * dL/dtheta: to shut them should harm."""
    still = WeightMask(weights, optimizer="sgd", lr=0.0)  # the mask stays at one, its saliency is the mean
    for step in range(draws):
        still.step(loss, step)
    worst = {name: still.saliency.values[name].flatten().argsort(stable=True) for name in positions}
    return {name: worst[name][: len(index)].sort().values for name, index in positions.items()}


def gate(judge: JudgedModel, case: Gate) -> dict[str, Any]:
    """Losses before and after shutting, and under random and anti-selected masks of the same per-layer sizes."""
    positions = shut(judge.located(case.name, case.search))
    loss, weights = loss_of(judge, case.name), attention_weights(judge.model)
    worst = anti_selected(loss, weights, positions, case.draws)
    randoms = [random_positions(positions, weights, 1000 * case.search.seed + k) for k in range(case.randoms)]
    sizes = {kind: sum(len(i) for n, i in positions.items() if f"to_{kind}" in n) for kind in ("k", "v")}
    return {
        "before": asdict(loss.evaluate(count=case.problems)),
        "after": asdict(loss.evaluate(with_zeros(weights, positions), case.problems)),
        "random": [loss.evaluate_concept(with_zeros(weights, each), case.problems) for each in randoms],
        "antiselected": loss.evaluate_concept(with_zeros(weights, worst), case.problems),
        "share": sum(sizes.values()) / sum(weight.numel() for weight in weights.values()),
        "sizes": sizes,
    }


def cross(judge: JudgedModel, case: Cross) -> dict[str, float]:
    """Drop of the loss on a subject under its own mask, the other's, and the union of both."""
    own, theirs = (shut(judge.located(name, case.search)) for name in (case.name, case.other))
    loss, weights = loss_of(judge, case.name), attention_weights(judge.model)
    union = {n: torch.cat([own.get(n, NONE), theirs.get(n, NONE)]).unique() for n in {*own, *theirs}}
    before = loss.evaluate_concept({}, case.problems)
    masks = {"own": own, "other": theirs, "union": union}
    return {k: before - loss.evaluate_concept(with_zeros(weights, m), case.problems) for k, m in masks.items()}


def jaccard(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Intersection over union of two sets of positions."""
    both = sum(int(torch.isin(first[n], second[n]).sum()) for n in first.keys() & second.keys())
    return both / (sum(map(len, first.values())) + sum(map(len, second.values())) - both)
