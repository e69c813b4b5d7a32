"""Thresholds keep their promise over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.metrics.conformal import conformal_threshold, false_positive_band


def test_the_rate_of_false_positives_is_kept_on_average_and_lies_in_its_band() -> None:
    rng, rates = np.random.default_rng(0), []
    for _ in range(400):
        clean = rng.exponential(size=200)
        rates.append(np.exp(-conformal_threshold(clean, 0.1)))  # the true share above it
    assert np.mean(rates) <= 0.1 and np.mean(rates) == pytest.approx(20 / 201, abs=0.003)
    low, high = false_positive_band(200, 0.1)
    inside = np.mean([(low <= rate <= high) for rate in rates])
    assert 0.92 < inside < 0.98


def test_ties_never_raise_the_rate() -> None:
    clean = np.repeat([0.0, 1.0], 50)
    assert conformal_threshold(clean, 0.05) == 1.0 and (clean > 1.0).mean() <= 0.05


def test_too_few_clean_inputs_are_refused_with_the_number_that_is_enough() -> None:
    with pytest.raises(DataError, match="expected 19 or more clean inputs, found 18"):
        conformal_threshold(np.arange(18.0), 0.05)
    assert conformal_threshold(np.arange(19.0), 0.05) == 18.0
    with pytest.raises(DataError, match="NaN"):
        conformal_threshold(np.array([0.0, np.nan] * 20), 0.5)
