"""The benchmark of unified tuners: what is trained, and what its rows make of accuracies."""

from __future__ import annotations

import pytest

from benchmarks.tune.unified_tuners import FULL, QUICK, WAYS, best_linear, cases, compared, gap

ACCURACY = {"linear": 0.5, "linear-fast": 0.6, "single": 0.7, "dual": 0.75, "tri": 0.75}


def found(settings):
    """Accuracies by way; two points more with each seed."""
    return {
        case: {"accuracy": ACCURACY.get(case[0], 0.74) + 0.02 * case[3], "seconds": 1.0, "trainable": 9, "bytes": 99}
        for case in cases(settings)
    }


def test_everything_is_trained_on_the_same_draws() -> None:
    full = cases(FULL)
    assert len(full) == len(set(full)) == 5 * (2 * 4 + 4)
    assert {case[0] for case in cases(QUICK)} == set(WAYS)


def test_the_linear_probe_is_the_better_of_two_rates() -> None:
    assert best_linear(found(FULL), FULL, [2]) == "linear-fast"


def test_a_difference_is_paired_and_counts_its_pairs() -> None:
    row = compared(found(FULL), FULL, "dual", "single", (2, 4), "unified_tuners.dual_vs_single")
    assert row.n == 10 and row.reached
    assert (row.value, row.low, row.high) == pytest.approx((0.05, 0.05, 0.05))  # the same in every pair


def test_the_gap_is_measured_by_the_spread_between_seeds() -> None:
    row = gap(found(FULL), FULL)
    assert row.value == pytest.approx(0.01) and row.target == "<= 0.0316" and row.reached
