import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap, student, wilson


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_of_a_mean_covers_it_about_95_times_in_100(method):
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        _, low, high = bootstrap(rng.gamma(2.0, 1.0, 40), method=method, resamples=500, seed=trial)
        covered += low <= 2.0 <= high
    assert 0.89 <= covered / 200 <= 0.98


def test_bca_follows_skew_where_percentile_does_not():
    rng = np.random.default_rng(1)
    values = rng.exponential(1.0, 30)
    plain, corrected = bootstrap(values, method="percentile"), bootstrap(values, method="bca")
    assert corrected.high > plain.high and corrected.low > plain.low


def test_ratio_and_paired_difference_cover_the_truth():
    rng = np.random.default_rng(2)
    ratio_covered = difference_covered = 0
    for trial in range(100):
        baseline = rng.normal(2.0, 0.3, 50)
        values = 1.5 * baseline + rng.normal(0.0, 0.2, 50)
        _, low, high = ratio_bootstrap(values, baseline, resamples=500, seed=trial)
        ratio_covered += low <= 1.5 <= high
        _, low, high = paired_bootstrap(values, baseline, resamples=500, seed=trial)
        difference_covered += low <= 1.0 <= high
    assert ratio_covered >= 88 and difference_covered >= 88


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(3)
    baseline = rng.normal(0, 5, 60)
    values = baseline + 1 + rng.normal(0, 0.1, 60)
    _, low, high = paired_bootstrap(values, baseline)
    assert 0.9 < low < high < 1.1


def test_groups_widen_the_interval_of_samples_that_move_together():
    rng = np.random.default_rng(4)
    subject = np.repeat(np.arange(8), 20)
    values = rng.normal(0, 1, 8)[subject] + rng.normal(0, 0.1, 160)
    alone, grouped = bootstrap(values), bootstrap(values, groups=list(subject))
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_constant_values_give_a_point():
    assert tuple(bootstrap([2.0] * 5)) == (2.0, 2.0, 2.0)


def test_wilson_covers_where_the_proportion_is_extreme():
    rng = np.random.default_rng(5)
    found = [wilson(int(k), 100) for k in rng.binomial(100, 0.98, 500)]
    assert np.mean([low <= 0.98 <= high for _, low, high in found]) > 0.9
    assert wilson(0, 10).low == 0.0 and wilson(10, 10).high == 1.0
    assert wilson(8, 10) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)  # published table value


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap([]),
        lambda: bootstrap([1.0, float("nan")]),
        lambda: paired_bootstrap([1.0], [1.0, 2.0]),
        lambda: bootstrap([1.0, 2.0], groups=["a"]),
        lambda: ratio_bootstrap([1.0, 2.0], [0.0, 0.0]),
        lambda: wilson(3, 2),
    ],
)
def test_bad_input_is_one_line(call):
    with pytest.raises(DataError) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_t_interval_of_three_runs_covers_and_is_wider_than_their_range():
    rng = np.random.default_rng(0)
    samples = rng.normal(5.0, 2.0, size=(2000, 3))
    covered = np.mean([(found := student(row)).low <= 5 <= found.high for row in samples])
    assert 0.93 < covered < 0.97
    value, low, high = student([1.0, 2.0, 4.0])
    assert value == pytest.approx(7 / 3) and low < 1 and high > 4
    assert high - value == pytest.approx(4.302653 * np.std([1, 2, 4], ddof=1) / 3**0.5, rel=1e-6)  # t of 2 degrees
    for bad in ([1.0], [1.0, float("nan")]):
        with pytest.raises(DataError, match="two finite"):
            student(bad)
