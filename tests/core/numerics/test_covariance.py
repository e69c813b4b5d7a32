from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.numerics.covariance import Covariance, JointCovariance


def logits(samples: int = 300, classes: int = 7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(3.0, 1.0, (samples, classes)) @ rng.normal(size=(classes, classes))


@pytest.mark.parametrize("gauge", [False, True])
@pytest.mark.parametrize("sizes", [(300,), (1, 299), (7, 0, 93, 200)])
def test_batches_of_any_size_give_the_covariance_of_the_whole(sizes: tuple[int, ...], gauge: bool) -> None:
    rows = logits()
    seen = Covariance(7, gauge=gauge)
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        seen.update(part)
    whole = rows - rows.mean(1, keepdims=True) if gauge else rows
    assert seen.count == 300
    np.testing.assert_allclose(seen.mean, whole.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(seen.moment(), np.cov(whole.T, bias=True), rtol=0, atol=1e-11)
    np.testing.assert_allclose(seen.moment("raw"), whole.T @ whole / 300, rtol=0, atol=1e-10)
    np.testing.assert_allclose(seen.moment("standardised"), np.corrcoef(whole.T), rtol=0, atol=1e-11)


def test_a_large_offset_costs_no_digits() -> None:
    rows = logits() + 1e7
    seen = Covariance(7)
    for part in np.split(rows, 10):
        seen.update(part)
    np.testing.assert_allclose(seen.moment(), np.cov(logits().T, bias=True), rtol=1e-6)


def test_merging_parts_equals_one_pass() -> None:
    rows = logits()
    merged = Covariance(7).update(rows[:100]).merge(Covariance(7).update(rows[100:])).merge(Covariance(7))
    np.testing.assert_allclose(merged.moment(), Covariance(7).update(rows).moment(), atol=1e-12)
    with pytest.raises(DataError, match="7 classes, gauge False and 7 classes, gauge True"):
        merged.merge(Covariance(7, gauge=True))


def test_moments_about_the_mean_of_other_samples() -> None:
    rows, others = logits(), logits(seed=1)
    away = rows - others.mean(0)
    found = Covariance(7).update(rows).moment(about=others.mean(0))
    np.testing.assert_allclose(found, away.T @ away / 300, atol=1e-11)


def test_two_aligned_sets_are_joined() -> None:
    left, right = logits(), logits(classes=4, seed=1)
    seen = JointCovariance(7, 4).update_pair(left[:50], right[:50]).update_pair(left[50:], right[50:])
    expected = (left - left.mean(0)).T @ (right - right.mean(0)) / 300
    np.testing.assert_allclose(seen.moment()[:7, 7:], expected, atol=1e-11)
    with pytest.raises(DataError, match="found 3 and 2"):
        seen.update_pair(left[:3], right[:2])


def test_each_network_has_its_own_gauge() -> None:
    left, right = logits(), logits(classes=4, seed=1)
    seen = JointCovariance(7, 4, gauge=True).update_pair(left, right)
    np.testing.assert_allclose(seen.moment("raw")[:7, :7].sum(0), 0, atol=1e-9)
    np.testing.assert_allclose(seen.moment("raw")[7:, 7:].sum(0), 0, atol=1e-9)


def test_the_gauge_makes_the_covariance_of_all_ones_vanish() -> None:
    np.testing.assert_allclose(Covariance(7, gauge=True).update(logits()).moment() @ np.ones(7), 0, atol=1e-10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_named(value: float) -> None:
    rows = logits()
    rows[12, 3] = value
    with pytest.raises(DataError, match=f"sample 52, class 3 is {value}"):
        Covariance(7).update(logits()[:40]).update(rows)


def test_constant_logits_are_named_and_carry_nothing() -> None:
    rows = logits()
    rows[:, 2] = 0.1
    seen = Covariance(7).update(rows[:90]).update(rows[90:])
    assert np.flatnonzero(seen.constant).tolist() == [2]
    assert not seen.moment("standardised")[2].any()


def test_a_tensor_of_half_floats_is_read_and_a_wrong_width_refused() -> None:
    assert Covariance(2).update(torch.ones(3, 2, dtype=torch.half)).mean.tolist() == [1.0, 1.0]
    with pytest.raises(DataError, match=r"\(samples, 3 classes\), found \(5, 2\)"):
        Covariance(3).update(np.zeros((5, 2)))
    with pytest.raises(DataError, match="no sample"):
        Covariance(3).moment()
