"""How the numbers that a part of an edit holds are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 16  # of a histogram, over the range from minus the largest magnitude to plus it


@dataclass(frozen=True)
class ValueSummary:
    """The numbers one part holds in the file; of a low-rank part its factors.

    Attributes:
        count: How many.
        minimum: The smallest.
        maximum: The largest.
        mean: Their mean.
        std: Their standard deviation.
        zeros: How many are zero.
        edges: The ends of the histogram's bins.
        counts: How many fall into each bin.
    """

    count: int
    minimum: float
    maximum: float
    mean: float
    std: float
    zeros: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def summary(arrays: Sequence[np.ndarray]) -> ValueSummary | None:
    """How numbers are distributed, array by array, so that memory stays that of the largest one."""
    if not arrays:
        return None
    count = sum(each.size for each in arrays)
    low, high = float(min(each.min() for each in arrays)), float(max(each.max() for each in arrays))
    mean = sum(float(each.sum(dtype=np.float64)) for each in arrays) / count
    variance = sum(float(np.square(each.astype(np.float64) - mean).sum()) for each in arrays) / count
    edges = np.linspace(-1.0, 1.0, BINS + 1) * (max(-low, high) or 1.0)
    counts = sum(np.histogram(each.astype(np.float64), edges)[0] for each in arrays)
    return ValueSummary(
        count=count,
        minimum=low,
        maximum=high,
        mean=mean,
        std=math.sqrt(variance),
        zeros=sum(int((each == 0).sum()) for each in arrays),
        edges=tuple(edges.tolist()),
        counts=tuple(np.asarray(counts).tolist()),
    )
