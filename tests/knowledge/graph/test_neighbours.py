"""Mutual nearest neighbours: as every pair compared says, approximate by choice, and refused where too many are to be exact."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.knowledge.graph import neighbours
from photopic.knowledge.graph.neighbours import SimilarityConfig, alike


def rows(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def every_pair(features: np.ndarray, wanted: int, threshold: float) -> set[tuple[int, int]]:
    cosine = features @ features.T
    np.fill_diagonal(cosine, -2)
    nearest = [set(np.argsort(-each)[:wanted].tolist()) for each in cosine]
    return {
        (a, b)
        for a in range(len(features))
        for b in nearest[a]
        if a < b and a in nearest[b] and cosine[a, b] > threshold
    }


@pytest.mark.parametrize("block", [7, 4096])
def test_pairs_are_those_of_all_compared_with_all(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    features = rows(200)
    found = alike(features, SimilarityConfig(neighbours=3, quantile=0.9))
    assert set(zip(found.head.tolist(), found.tail.tolist(), strict=True)) == every_pair(features, 3, found.threshold)
    assert np.allclose(found.weight, (features[found.head] * features[found.tail]).sum(1), atol=1e-6)
    assert found.head.tolist() == sorted(found.head.tolist())


def test_many_twins_name_each_other_and_not_themselves() -> None:
    found = alike(np.repeat(rows(1), 4, axis=0), SimilarityConfig(neighbours=5, quantile=0.0))
    assert not len(found.head)  # no pair is nearer than chance
    mixed = np.concatenate([np.repeat(rows(1), 3, axis=0), rows(50, seed=2)])
    found = alike(mixed, SimilarityConfig(neighbours=2, quantile=0.9))
    assert {(0, 1), (0, 2), (1, 2)} <= set(zip(found.head.tolist(), found.tail.tolist(), strict=True))


def test_an_approximate_search_finds_most_of_them_and_the_same_twice() -> None:
    features = rows(3_000, 16)
    exact = alike(features, SimilarityConfig())
    near = [alike(features, SimilarityConfig(search="approximate", probed=0.3)) for _ in range(2)]
    assert np.array_equal(near[0].head, near[1].head) and np.array_equal(near[0].weight, near[1].weight)
    pairs = [set(zip(each.head.tolist(), each.tail.tolist(), strict=True)) for each in (exact, near[0])]
    assert 0.6 < len(pairs[0] & pairs[1]) / len(pairs[0]) < 1


def test_too_many_nodes_are_refused_unless_approximate_is_chosen() -> None:
    with pytest.raises(
        DataError, match=r"expected at most 50 nodes for an exact search, found 60; choose search=approximate"
    ):
        alike(rows(60), SimilarityConfig(), limit=50)
    assert len(alike(rows(60), SimilarityConfig(search="approximate", probed=1.0), limit=50).head)
    assert neighbours.EXACT_LIMIT == 1_000_000


@pytest.mark.parametrize("count", [0, 1, 2])
def test_so_few_nodes_are_no_problem(count: int) -> None:
    assert len(alike(rows(count), SimilarityConfig()).head) == 0
