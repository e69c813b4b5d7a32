"""Filtered realistic ranks against a plain loop, and the values that perfect, constant and random scorers must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.knowledge_graph import Triples
from photopic.metrics.link_ranks import KnownTails, LinkRanks, filtered_ranks, link_metrics

NODES, RELATIONS = 40, 3


def triples(count: int, seed: int = 0) -> Triples:
    rng = np.random.default_rng(seed)
    rows = np.unique(np.stack([rng.integers(size, size=count) for size in (NODES, RELATIONS, NODES)], 1), axis=0)
    head, relation, tail = rng.permutation(rows).T
    return Triples(head, relation.astype(np.int16), tail)


def table(seed: int = 0, levels: int = 5) -> Tensor:
    """Scores with many ties."""
    return torch.from_numpy(np.random.default_rng(seed).integers(levels, size=(NODES, RELATIONS, NODES))).float()


def test_ranks_are_those_of_a_plain_loop_with_and_without_kinds() -> None:
    known, scores = triples(300), table()
    links, allowed = known[np.arange(60)], np.random.default_rng(1).random((RELATIONS, NODES)) < 0.6
    true = set(zip(known.head.tolist(), known.relation.tolist(), known.tail.tolist(), strict=True))
    for candidates in (None, allowed):
        found = filtered_ranks(
            lambda h, r: scores[h, r].clone(), links, KnownTails(known, RELATIONS), candidates=candidates, batch=7
        )
        for place, (h, r, t) in enumerate(
            zip(links.head.tolist(), links.relation.tolist(), links.tail.tolist(), strict=True)
        ):
            others = [
                each for each in range(NODES) if (h, r, each) not in true and (candidates is None or allowed[r, each])
            ]
            own = scores[h, r, t]
            equal = sum(bool(scores[h, r, each] == own) for each in others)
            greater = sum(bool(scores[h, r, each] > own) for each in others)
            assert found.rank[place] == greater + (equal + 1 + 1) / 2
            assert found.candidates[place] == len(others) + 1


def test_a_constant_scorer_has_the_middle_rank_and_a_perfect_one_the_first() -> None:
    known = triples(300)
    links, tails = known[np.arange(50)], KnownTails(known, RELATIONS)
    constant = filtered_ranks(lambda h, r: torch.zeros(len(h), NODES), links, tails)
    assert np.array_equal(constant.rank, (constant.candidates + 1) / 2)
    found = link_metrics(constant)
    assert found["mrr"].value == pytest.approx(np.mean(2 / (constant.candidates + 1)))
    assert found["adjusted_mean_rank_index"].value == pytest.approx(0)
    truth = torch.zeros(NODES, RELATIONS, NODES)
    truth[known.head, known.relation.astype(int), known.tail] = 1
    perfect = link_metrics(filtered_ranks(lambda h, r: truth[h, r].clone(), links, tails))
    assert [each.value for each in perfect.values()] == [1.0] * 5


def test_a_random_scorer_has_its_expected_reciprocal_rank() -> None:
    questions = np.arange(NODES * RELATIONS)
    links = Triples(questions // RELATIONS, (questions % RELATIONS).astype(np.int16), questions % NODES)
    draw, tails = (
        torch.Generator().manual_seed(0),
        KnownTails(links, RELATIONS),
    )  # one tail each: all nodes are candidates
    several = [filtered_ranks(lambda h, r: torch.rand(len(h), NODES, generator=draw), links, tails) for _ in range(20)]
    found = LinkRanks(*(np.concatenate([getattr(each, name) for each in several]) for name in ("rank", "candidates")))
    expected = sum(1 / rank for rank in range(1, NODES + 1)) / NODES  # H_m / m
    low, high = link_metrics(found)["mrr"][1:]
    assert low < expected < high
    assert abs((found.rank <= 10).mean() - 10 / NODES) < 0.03


def test_validation_edges_are_filtered_too() -> None:
    links = Triples(np.array([0]), np.zeros(1, np.int16), np.array([1]))
    valid = Triples(np.array([0]), np.zeros(1, np.int16), np.array([2]))
    scores = torch.tensor([[0.0, 1.0, 2.0, 0.0]])
    without = filtered_ranks(lambda h, r: scores.clone(), links, KnownTails(links, 1))
    assert without.rank == 2
    assert filtered_ranks(lambda h, r: scores.clone(), links, KnownTails(links.joined(valid), 1)).rank == 1


def test_both_directions_of_an_edge_are_resampled_together() -> None:
    ranks = LinkRanks(np.array([1.0, 9.0, 1.0, 9.0]), np.full(4, 20))
    alone, together = (link_metrics(ranks, groups)["mrr"] for groups in (None, np.array([0, 0, 1, 1])))
    assert together.high - together.low < 1e-9 < alone.high - alone.low


def test_bad_links_are_refused() -> None:
    links = triples(5)
    with pytest.raises(DataError, match="one or more to rank"):
        filtered_ranks(lambda h, r: torch.zeros(len(h), NODES), links[np.arange(0)], KnownTails(links, RELATIONS))
    with pytest.raises(DataError, match="found nan"):
        filtered_ranks(lambda h, r: torch.full((len(h), NODES), torch.nan), links, KnownTails(links, RELATIONS))
