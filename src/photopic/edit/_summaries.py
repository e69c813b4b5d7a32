"""How the numbers that a part of an edit holds are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

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


def summary(tensors: Sequence[Tensor]) -> ValueSummary | None:
    """How numbers are distributed, tensor by tensor, so that memory stays that of the largest one."""
    if not tensors:
        return None
    count = sum(each.numel() for each in tensors)
    ends = [each.float().aminmax() for each in tensors]
    low, high = min(float(end.min) for end in ends), max(float(end.max) for end in ends)
    mean = sum(float(each.double().sum()) for each in tensors) / count
    variance = sum(float((each.double() - mean).square().sum()) for each in tensors) / count
    edges = np.linspace(-1.0, 1.0, BINS + 1) * (max(-low, high) or 1.0)
    counts = sum(np.histogram(each.double().numpy(), edges)[0] for each in tensors)
    return ValueSummary(
        count=count,
        minimum=low,
        maximum=high,
        mean=mean,
        std=math.sqrt(variance),
        zeros=sum(int((each == 0).sum()) for each in tensors),
        edges=tuple(edges.tolist()),
        counts=tuple(np.asarray(counts).tolist()),
    )
