"""The area under the ROC curve is the share of pairs in order."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.metrics.ranking import auroc, auroc_interval


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(6)
    positive, negative = rng.integers(0, 9, 30), rng.integers(0, 7, 40)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))
    assert auroc(negative, positive) == pytest.approx(1 - np.mean(pairs))
    assert auroc(2.0 * positive + 1, 2.0 * negative + 1) == auroc(positive, negative)  # only the order counts


def test_the_interval_holds_the_value_and_comes_again_from_the_same_seed() -> None:
    units = [[1.0, 2.0], [3.0], [0.2]], [[0.0], [2.5, 0.1], [0.3]]
    value, low, high = auroc_interval(*units)
    assert low <= value <= high and low < high
    assert auroc_interval(*units) == (value, low, high)


def test_an_empty_set_and_unlike_units_are_refused() -> None:
    with pytest.raises(DataError, match="0 positives and 1 negatives"):
        auroc([], [1.0])
    with pytest.raises(DataError, match="found 1 and 2"):
        auroc_interval([[1.0]], [[0.0], [1.0]])
