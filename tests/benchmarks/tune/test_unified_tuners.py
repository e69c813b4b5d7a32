"""The benchmark of unified tuners: what is trained, and what its rows make of accuracies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.tune.unified_tuners import NAMES, WAYS, TunersConfig, best_linear, cases, compared, gap

ACCURACY = {"linear": 0.5, "linear-fast": 0.6, "single": 0.7, "dual": 0.75, "tri": 0.75}
BENCH: Any = SimpleNamespace(  # accuracies by way; two points more with each seed
    config=TunersConfig(), found=lambda case: {"accuracy": ACCURACY.get(case.way, 0.74) + 0.02 * case.seed}
)


def test_everything_is_trained_on_the_same_draws() -> None:
    full = cases(TunersConfig())
    assert len(full) == len(set(full)) == 5 * (2 * 4 + 4 + 1)
    assert {case.way for case in cases(TunersConfig((0,), (2,)))} == {*WAYS, NAMES}


def test_rows_take_the_better_linear_probe_pair_by_seed_and_measure_a_gap_by_the_spread_between_seeds() -> None:
    assert best_linear(BENCH, [2]) == "linear-fast"
    found = compared(BENCH, "dual", "single", (2, 4), "dual_vs_single")
    assert found.n == 10 and (found.value, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    spread = gap(BENCH)
    assert spread.value == pytest.approx(0.01) and spread.target == "<= 0.0316" and spread.reached
