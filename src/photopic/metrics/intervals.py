"""Confidence intervals: bootstrap for means, paired differences and ratios, Wilson for proportions, Student's t for few runs.

Every statistic here is a function of column means, so a resample is one row of multinomial counts and all resamples
are one matrix product. ``bca`` corrects the percentile interval for bias and skew (Efron 1987). Rows that belong
together, such as samples of one subject, are resampled together when ``groups`` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Num

from photopic.core.errors import DataError

Method = Literal["percentile", "bca"]


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval; unpacks as ``value, low, high``."""

    value: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float] | Num[np.ndarray, "n"],
    *,
    groups: Sequence[object] | None = None,
    method: Method = "bca",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean.

    Args:
        values: One number a sample.
        groups: Label of each sample; samples with one label are resampled together. None: each alone.
        method: ``bca`` or ``percentile``.
        confidence: Coverage asked for, between 0 and 1.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The mean and its bounds.

    Raises:
        DataError: If there is no value, a value is not finite, or lengths differ.

    Example:
        >>> value, low, high = bootstrap([1.0, 2.0, 3.0, 4.0])
        >>> low < value == 2.5 < high
        True
    """
    return _interval([values], lambda means: means[..., 0], groups, method, confidence, resamples, seed)


def paired_bootstrap(
    values: Sequence[float] | Num[np.ndarray, "n"],
    baseline: Sequence[float] | Num[np.ndarray, "n"],
    *,
    groups: Sequence[object] | None = None,
    method: Method = "bca",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of ``values - baseline``, sample by sample (same prompt, same seed).

    Args, raises: as ``bootstrap``; both sequences have one length.

    Example:
        >>> [round(each, 6) for each in paired_bootstrap([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])]
        [1.0, 1.0, 1.0]
    """
    columns = [values, baseline]
    return _interval(columns, lambda m: m[..., 0] - m[..., 1], groups, method, confidence, resamples, seed)


def ratio_bootstrap(
    values: Sequence[float] | Num[np.ndarray, "n"],
    baseline: Sequence[float] | Num[np.ndarray, "n"],
    *,
    groups: Sequence[object] | None = None,
    method: Method = "bca",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of ``mean(values) / mean(baseline)`` over paired samples.

    Args, raises: as ``bootstrap``; both sequences have one length and the baseline's mean is not zero.

    Example:
        >>> ratio_bootstrap([2.0, 4.0], [1.0, 2.0])
        Interval(value=2.0, low=2.0, high=2.0)
    """
    if len(baseline) and float(np.mean(np.asarray(baseline, float))) == 0:
        raise DataError("the baseline of a ratio has mean 0: report the difference instead")
    columns = [values, baseline]
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hit zero; such an interval shows as inf
        return _interval(columns, lambda m: m[..., 0] / m[..., 1], groups, method, confidence, resamples, seed)


def student(values: Sequence[float] | Num[np.ndarray, "n"], *, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean, for a handful of runs: a bootstrap of three never leaves their range.

    Args:
        values: Two numbers or more, of independent runs; their mean is taken to be about normal. For paired runs, differences.
        confidence: Coverage asked for, between 0 and 1.

    Raises:
        DataError: If there are fewer than two values or one is not finite.

    Example:
        >>> [round(each, 2) for each in student([1.0, 2.0, 3.0])]
        [2.0, -0.48, 4.48]
    """
    from scipy.stats import t

    found = np.asarray(values, float)
    if len(found) < 2 or not np.isfinite(found).all():
        raise DataError(f"a t interval needs two finite values or more, found {found.tolist()}")
    half = float(t.ppf(0.5 + confidence / 2, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half)


def wilson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927); sensible near 0 and 1 where a bootstrap is not.

    Raises:
        DataError: If ``trials`` is not positive or ``successes`` is outside 0 to ``trials``.

    Example:
        >>> wilson(10, 10).low > 0.7
        True
    """
    if not 0 <= successes <= trials or trials < 1:
        raise DataError(f"a proportion needs 0 <= successes <= trials and trials >= 1, found {successes} of {trials}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    return Interval(share, centre - half if successes else 0.0, centre + half if successes < trials else 1.0)


def _interval(
    columns: Sequence[Sequence[float] | np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[object] | None,
    method: Method,
    confidence: float,
    resamples: int,
    seed: int,
) -> Interval:
    units = _units(columns, groups)  # (units, columns + 1): sums of each unit, then its number of rows
    means = statistic(_means(units.sum(0)))
    count = len(units)
    rng = np.random.default_rng(seed)
    block = max(1, 10_000_000 // count)  # bounds memory
    draws = np.concatenate(
        [
            statistic(_means(rng.multinomial(count, np.full(count, 1 / count), min(block, resamples - start)) @ units))
            for start in range(0, resamples, block)
        ]
    )
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca" and count > 1:
        tails = _bca_tails(tails, draws, float(means), statistic(_means(units.sum(0) - units)))
    low, high = np.quantile(draws, tails)
    return Interval(float(means), float(low), float(high))


def _units(columns: Sequence[Sequence[float] | np.ndarray], groups: Sequence[object] | None) -> np.ndarray:
    lengths = {len(column) for column in columns} | ({len(groups)} if groups is not None else set())
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"a bootstrap needs columns of one positive length, found lengths {sorted(lengths)}")
    rows = np.stack([*(np.asarray(column, float) for column in columns), np.ones(len(columns[0]))], 1)
    if not np.isfinite(rows).all():
        raise DataError(f"a bootstrap needs finite values, found {int((~np.isfinite(rows)).sum())} that are not")
    if groups is None:
        return rows
    labels = {label: index for index, label in enumerate(dict.fromkeys(groups))}
    units = np.zeros((len(labels), rows.shape[1]))
    np.add.at(units, [labels[label] for label in groups], rows)
    return units


def _means(sums: np.ndarray) -> np.ndarray:
    return sums[..., :-1] / sums[..., -1:]


def _bca_tails(tails: np.ndarray, draws: np.ndarray, value: float, jackknife: np.ndarray) -> np.ndarray:
    """Corrected quantiles: bias z0 from the share of draws below the estimate, acceleration a from the jackknife."""
    normal = NormalDist()
    below = float(np.mean(draws < value) + 0.5 * np.mean(draws == value))
    if not 0 < below < 1:
        return tails
    bias = normal.inv_cdf(below)
    away = jackknife.mean() - jackknife
    spread = float((away**2).sum())
    acceleration = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0  # Efron 1987, eq. 6.6
    shifted = np.array([bias + normal.inv_cdf(tail) for tail in tails])
    return np.array([normal.cdf(bias + s / (1 - acceleration * s)) for s in shifted])
