"""Calls timed in turns, so that all meet the same state of a noisy machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def side_by_side(calls: Sequence[Callable[[], object]], repeats: int, *, warm_up: int) -> list[list[float]]:
    """Seconds of each call in each round; the ``warm_up`` rounds before do not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + warm_up):
        for call, times in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                times.append(time.perf_counter() - started)
    return seconds
