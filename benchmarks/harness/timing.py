"""Calls timed in turns, so that all meet the same state of a noisy machine, and compared round by round by their medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import NormalDist, median

from photopic.metrics.intervals import Interval


def side_by_side(
    calls: Sequence[Callable[[], object]], repeats: int, *, warm_up: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each call in each round; the ``warm_up`` rounds before do not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + warm_up):
        for call, times in zip(calls, seconds, strict=True):
            started = clock()
            call()
            if turn >= warm_up:
                times.append(clock() - started)
    return seconds


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Median over rounds of our time over theirs, with the 95 % interval of that median; see ``median_interval``."""
    return median_interval([one / other for one, other in zip(ours, theirs, strict=True)])


def median_interval(values: Sequence[float]) -> Interval:
    """A median with its 95 % interval from order statistics; of fewer than six values their range.

    Example:
        >>> median_interval([3.0, 1.0, 2.0])
        Interval(value=2.0, low=1.0, high=3.0)
    """
    ordered = sorted(values)
    below = max(0, int((len(ordered) - NormalDist().inv_cdf(0.975) * len(ordered) ** 0.5) / 2))
    return Interval(median(ordered), ordered[below], ordered[-1 - below])
