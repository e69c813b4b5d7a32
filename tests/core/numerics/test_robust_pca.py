"""Robust PCA: planted parts come back, the certificate holds both ways, and the end is an optimum whatever the penalty."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.core.numerics.robust_pca import robust_pca, smallest_weight


def planted(n: int = 100, rank: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(n, rank))
    wrong = np.triu((rng.random((n, n)) < 0.05) * rng.choice([-10.0, 10.0], (n, n)), 1)
    return factor @ factor.T, wrong + wrong.T


def gram(d: int = 40) -> np.ndarray:
    """Full rank, fast decay, no direction along an axis: as Gram matrices of generators are."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(20 * d, d)) * np.exp(-np.arange(d) / 6)
    rows = rows @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("penalty", ["textbook", "released"])
def test_planted_low_rank_and_sparse_parts_come_back(penalty):
    low, wrong = planted()
    found = robust_pca(low + wrong, penalty=penalty)
    assert found.rank == 5 and found.converged
    assert np.linalg.norm(found.low_rank - low) < 1e-6 * np.linalg.norm(low)


def test_the_textbook_penalty_needs_a_fraction_of_the_iterations_for_the_same_optimum():
    low, wrong = planted()
    ours, released = (robust_pca(low + wrong, penalty=each) for each in ("textbook", "released"))
    assert ours.objective == pytest.approx(released.objective, rel=1e-5)
    assert 5 * ours.iterations < released.iterations


def test_the_certificate_says_both_ways_whether_anything_of_low_rank_is_left():
    matrix = gram()
    least = smallest_weight(matrix)
    assert not robust_pca(matrix, 0.98 * least).low_rank.any()
    assert robust_pca(matrix, 1.02 * least).rank >= 1


def test_the_end_meets_the_conditions_of_an_optimum():
    matrix, weight = gram(), 1 / np.sqrt(40)
    found = robust_pca(matrix, weight)
    assert np.linalg.norm(found.dual, 2) <= 1 + 1e-4 and np.abs(found.dual).max() <= weight * (1 + 1e-4)
    assert np.sum(found.dual * found.low_rank) == pytest.approx(
        np.abs(found.values).sum(), rel=1e-4
    )  # Y in the subgradients
    np.testing.assert_allclose((found.vectors.T * found.values) @ found.vectors, found.low_rank, atol=1e-12)


def test_the_released_rule_stops_before_its_optimum():
    matrix = gram()
    weight = 0.5 * smallest_weight(matrix)  # whose optimum is L = 0
    early = robust_pca(matrix, weight, penalty="released", dual_test=False)
    assert early.rank >= 1 and early.objective > robust_pca(matrix, weight).objective * (1 + 1e-3)


@pytest.mark.parametrize(
    ("matrix", "found"),
    [
        (np.zeros((3, 3)), "0"),
        (np.triu(np.ones((3, 3))), "not"),
        (np.ones((2, 3)), "shape"),
        (np.full((2, 2), np.nan), "finite"),
    ],
)
def test_what_is_no_symmetric_matrix_is_refused(matrix, found):
    with pytest.raises(DataError, match=found):
        robust_pca(matrix)
