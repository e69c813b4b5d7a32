"""Scores of few-shot learning: exact identities, paired intervals, the table."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.metrics.few_shot import (
    Outcome,
    accuracy_interval,
    harmonic_interval,
    harmonic_mean,
    learning_curve_table,
)

RNG = np.random.default_rng(0)


def right(share: float, seeds: int = 4, pictures: int = 60) -> np.ndarray:
    return (RNG.random((seeds, pictures)) < share).astype(int)


def test_the_harmonic_mean_has_its_identities() -> None:
    assert harmonic_mean(0.0, 0.0) == harmonic_mean(0.7, 0.0) == harmonic_mean(0.0, 1.0) == 0.0
    assert harmonic_mean(0.5, 1.0) == 2 / 3 and harmonic_mean(0.25, 0.75) == harmonic_mean(0.75, 0.25) == 0.375
    for base, new in RNG.random((20, 2)):
        assert harmonic_mean(base, base) == pytest.approx(base, rel=1e-15)
        assert min(base, new) <= harmonic_mean(base, new) <= (base * new) ** 0.5 <= (base + new) / 2
        assert 2 / harmonic_mean(base, new) == pytest.approx(1 / base + 1 / new)
    assert harmonic_mean(np.array([0.0, 0.5]), np.array([0.0, 1.0])).tolist() == [0.0, 2 / 3]


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="expected numbers of 0 or more"):
        harmonic_mean(0.5, bad)


def test_intervals_hold_the_mean_and_are_the_same_again() -> None:
    correct = right(0.6)
    found = accuracy_interval(correct)
    assert found.value == pytest.approx(correct.mean()) and found.low < found.value < found.high
    assert found == accuracy_interval(correct)


def test_a_gain_over_itself_is_nothing() -> None:
    correct, new = right(0.6), right(0.4)
    assert accuracy_interval(correct, correct) == (0.0, 0.0, 0.0)
    assert harmonic_interval(correct, new, (correct, new)) == (0.0, 0.0, 0.0)


def test_gains_are_paired() -> None:
    baseline = right(0.5)
    better = baseline.copy()
    better[:, :6] = 1  # never worse, so the gain's interval does not reach below 0
    gain, alone = accuracy_interval(better, baseline), accuracy_interval(better)
    assert gain.low >= 0 and gain.high - gain.low < alone.high - alone.low


def test_seeds_are_resampled_too() -> None:
    pictures = right(0.5, seeds=1, pictures=400)
    alike = np.repeat(pictures, 4, axis=0)
    apart = alike.copy()
    apart[:2], apart[2:] = 1, 0  # the same mean, but from seed to seed all or nothing
    wide, narrow = accuracy_interval(apart), accuracy_interval(alike)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_the_harmonic_interval_is_of_the_seeds_harmonic_means() -> None:
    base, new = right(0.8), right(0.3)
    wanted = np.mean([harmonic_mean(base[seed].mean(), new[seed].mean()) for seed in range(4)])
    found = harmonic_interval(base, new)
    assert found.value == pytest.approx(wanted) and found.low < wanted < found.high
    other = right(0.5)
    lost = np.mean([harmonic_mean(other[seed].mean(), new[seed].mean()) for seed in range(4)])
    assert harmonic_interval(base, new, (other, new)).value == pytest.approx(wanted - lost)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"one row a seed and one column a picture, alike, found \(4, 60\) and \(4, 10\)"
    ):
        accuracy_interval(right(0.5), right(0.5, pictures=10))
    with pytest.raises(DataError, match="expected as many seeds everywhere"):
        harmonic_interval(right(0.5), right(0.5, seeds=3))
    with pytest.raises(DataError, match="found"):
        accuracy_interval(np.zeros((0, 0)))


def test_the_table_has_gains_over_the_reference() -> None:
    outcomes = {
        ("zero-shot", 1): Outcome(right(0.4)),
        ("lora", 1): Outcome(right(0.9), trainable=7, size_bytes=28, seconds=(1.0, 3.0)),
        ("lora", 4): Outcome(right(0.9)),
    }
    first, second, third = learning_curve_table(outcomes, "zero-shot")
    assert first["gain"] is None and third["gain"] is None  # no reference with 4 shots
    assert second["gain"] == pytest.approx(second["score"] - first["score"]) and second["gain_low"] > 0
    assert (second["trainable"], second["size_bytes"], second["seconds"], second["seeds"]) == (7, 28, 2.0, 4)
    assert first["new"] is None and first["base"] is None
    assert first.keys() == second.keys() == third.keys()


def test_the_table_of_base_and_new_scores_the_harmonic_mean() -> None:
    base, new = right(0.8), right(0.3)
    outcomes = {("full", 1): Outcome(base, new), ("linear-probe", 1): Outcome(base)}
    full, probe = learning_curve_table(outcomes, "full")
    assert full["score"] == pytest.approx(harmonic_interval(base, new).value)
    assert (full["base"], full["new"]) == (pytest.approx(base.mean()), pytest.approx(new.mean()))
    assert probe["score"] is None and probe["gain"] is None and probe["base"] == pytest.approx(base.mean())
