"""Budgets of a mask search: sets that fit into bytes, structures that code cheaper, a penalty that ends at a density."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.models.mask_budget import SparsityPenalty, coded_bytes, scores_of, select

SHAPES = {"a": (24, 32), "b": (16, 48), "c": (40,)}


def drawn(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}


def crowded() -> dict[str, Tensor]:
    """Scores that are high in a few rows."""
    scores = {name: 0.01 * each for name, each in drawn().items()}
    scores["a"][5], scores["b"][2] = 1.0, 0.9
    return scores


@pytest.mark.parametrize("structure", ["entries", "rows", "within-rows", "cheapest"])
@pytest.mark.parametrize("budget", [40, 60, 200])
def test_what_is_chosen_costs_no_more_than_the_budget(structure: Any, budget: int) -> None:
    found = select(drawn(), budget, structure=structure)
    assert coded_bytes(found.positions, SHAPES) == found.size_bytes <= budget
    assert found.gain == pytest.approx(sum(float(drawn()[n].flatten()[at].sum()) for n, at in found.positions.items()))
    assert all(bool((at[1:] > at[:-1]).all()) for at in found.positions.values())


def test_the_budget_is_used_and_the_best_come_first() -> None:
    scores = drawn()
    found = select(scores, 120)
    kept = torch.cat([scores[name].flatten()[at] for name, at in found.positions.items()])
    flat = torch.cat([each.flatten() for each in scores.values()])
    assert torch.equal(kept.sort().values, flat.sort().values[-len(kept) :])
    assert found.size_bytes > 110
    assert select(scores, 240).gain > found.gain


def test_whole_rows_are_whole_and_gain_more_where_scores_crowd_in_rows() -> None:
    scores = crowded()
    rows, entries = select(scores, 80, structure="rows"), select(scores, 80)
    assert set(range(160, 192)) <= set(rows.positions["a"].tolist())
    assert set(range(96, 144)) <= set(rows.positions["b"].tolist())
    assert len(rows.positions["a"]) % 32 == len(rows.positions["b"]) % 48 == 0
    assert rows.gain > entries.gain
    assert select(scores, 80, structure="cheapest").gain >= rows.gain


def test_entries_within_the_best_rows_gain_more_where_rows_differ() -> None:
    scores = {"a": torch.rand(64, 64, generator=torch.Generator().manual_seed(0))}
    scores["a"][8:] *= 0.8
    found, anywhere = (select(scores, 100, structure=each) for each in ("within-rows", "entries"))  # type: ignore[arg-type]
    assert found.gain > anywhere.gain
    assert len(set((found.positions["a"] // 64).tolist())) < len(set((anywhere.positions["a"] // 64).tolist()))


def test_entries_of_no_worth_are_never_chosen() -> None:
    scores = {"a": torch.zeros(24, 32)}
    scores["a"][0, :3] = 1.0
    for structure in ("entries", "rows", "within-rows"):
        found = select(scores, 10_000, structure=structure)  # type: ignore[arg-type]
        assert found.gain == 3 and 0 in found.positions["a"].tolist()
    assert select(scores, 10_000).positions["a"].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="budget of 1 bytes"):
        select(scores, 1)


def test_scores_are_what_a_mask_lost_and_saliency_breaks_ties() -> None:
    scores = scores_of({"w": torch.tensor([0.2, 0.2, 0.9])}, {"w": torch.tensor([-5.0, 5.0, 9.0])})["w"]
    assert scores.argsort(descending=True).tolist() == [1, 0, 2]
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.8, 0.1]), atol=1e-5, rtol=0)


# --- the penalty


def trained(density: float, steps: int = 200, scale: float = 1.0) -> tuple[Tensor, SparsityPenalty]:
    """Masks of 2,000 weights, half of which would rather be shut; how much differs, and every step is noisy."""
    worth = torch.linspace(-1, 1, 2000)  # dL/dM
    masks = {"w": torch.ones(2000, requires_grad=True)}
    optimizer = torch.optim.Adam(masks.values(), lr=0.02)
    penalty = SparsityPenalty(density, steps)
    for step in range(steps):
        noise = torch.randn(2000, generator=torch.Generator().manual_seed(step))
        pull = scale * (worth + 0.1 * noise)
        penalty.update(masks, {"w": pull}, step)
        masks["w"].grad = pull - penalty.weight
        optimizer.step()
        with torch.no_grad():
            masks["w"].clamp_(0, 1)
    return masks["w"].detach(), penalty


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_search_ends_near_the_density_whatever_the_scale_of_the_loss(density: float, scale: float) -> None:
    masks, _ = trained(density, scale=scale)
    share = float((masks < 0.5).float().mean())
    assert 0.5 * density < share < 2 * density + 0.05  # what was pushed up late is still on its way


def test_the_weights_most_worth_shutting_are_shut() -> None:
    masks, _ = trained(0.1)
    shut = (masks < 0.5).nonzero().flatten()
    worth_most = 2000 - 1 - torch.arange(len(shut)).flip(0)
    assert len(set(shut.tolist()) & set(worth_most.tolist())) > 0.9 * len(shut)


def test_the_schedule_falls_to_the_density_and_stays() -> None:
    penalty = SparsityPenalty(0.05, 100)
    shares = [penalty.allowed(step) for step in range(100)]
    assert all(a >= b for a, b in pairwise(shares))
    assert shares[0] < 0.5 and shares[59] == pytest.approx(0.05) and shares[-1] == pytest.approx(0.05)
    with pytest.raises(DataError, match="density: expected above 0 to 1, found 0"):
        SparsityPenalty(0.0, 100)


def test_the_weight_is_the_pull_that_the_allowed_share_exceeds() -> None:
    penalty = SparsityPenalty(0.1, 1)
    pulls = {"a": torch.arange(6.0), "b": torch.arange(6.0, 20.0)}
    ones = {name: torch.ones_like(each) for name, each in pulls.items()}
    penalty.update(ones, pulls, 0)
    assert penalty.weight == pytest.approx(18.0)  # 2 of 20 have it or more
    penalty = SparsityPenalty(0.1, 1)
    penalty.update({"a": torch.zeros(6), "b": torch.ones(14)}, pulls, 0)  # three times as many are low as may be
    assert penalty.weight == pytest.approx(19.0)
    penalty.update(ones, {name: -20 * each - 1 for name, each in pulls.items()}, 1)
    assert penalty.weight == 0  # nothing is to be pushed down
    masks = {name: each.clone().fill_(0.5).requires_grad_() for name, each in pulls.items()}
    penalty.weight = 3.0
    found = penalty(masks)
    found.backward()
    assert found.item() == 3 * 10 and masks["a"].grad is not None and masks["a"].grad.tolist() == [-3.0] * 6


def test_a_restored_penalty_goes_on_as_if_nothing_happened() -> None:
    ones, whole, broken = {"w": torch.ones(50)}, SparsityPenalty(0.1, 9), SparsityPenalty(0.1, 9)
    pulls = [{"w": torch.randn(50, generator=torch.Generator().manual_seed(step))} for step in range(9)]
    for step in range(9):
        whole.update(ones, pulls[step], step)
        if step == 5:
            kept = {name: each.clone() for name, each in broken.tensors().items()}
            broken = SparsityPenalty(0.1, 9)
            broken.restore(kept, torch.device("cpu"))
        broken.update(ones, pulls[step], step)
    assert whole.weight == broken.weight
