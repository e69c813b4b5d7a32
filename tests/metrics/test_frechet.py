"""The distance is its closed form for Gaussians, and bad input is named."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from photopic.core.errors import DataError
from photopic.metrics.frechet import frechet_distance

RNG = np.random.default_rng(0)


def test_it_is_the_formula_with_the_square_root_of_scipy() -> None:
    one, other = RNG.normal(size=(300, 5)) @ RNG.normal(size=(5, 5)), RNG.normal(size=(200, 5)) * 2 + 1
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    gap = one.mean(0) - other.mean(0)
    wanted = gap @ gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(wanted, rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_and_a_shift_costs_its_square() -> None:
    rows = RNG.normal(size=(100, 8))
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(rows, rows + 0.5) == pytest.approx(8 * 0.25)


def test_fewer_rows_than_dimensions_are_measured() -> None:
    assert frechet_distance(RNG.normal(size=(3, 20)), RNG.normal(size=(4, 20))) > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3))),
        (np.zeros((5, 3)), np.zeros((5, 4))),
        (np.full((5, 3), np.nan), np.zeros((5, 3))),
    ],
)
def test_bad_input_is_named(one: np.ndarray, other: np.ndarray) -> None:
    with pytest.raises(DataError, match="features"):
        frechet_distance(one, other)
