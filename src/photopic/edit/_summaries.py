"""The numbers that the parts of an edit hold, of every kind: what they are, their norm, and how they are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from photopic.core.edits import (
    Adapters,
    ClassifierHead,
    DenseDelta,
    InitialNoise,
    Insertion,
    LowRankDelta,
    Part,
    SparseWeights,
    SteeringVector,
    TokenEmbedding,
    TokenResidual,
)

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


def stored(part: Part) -> dict[str, list[Tensor]]:
    """The numbers a part holds, by row."""
    match part:
        case SparseWeights():
            return {name: [values] for name, values in part.values.items()}
        case LowRankDelta():
            return {name: [part.up[name], part.down[name]] for name in part.up}
        case DenseDelta():
            return {name: [delta] for name, delta in part.deltas.items()}
        case TokenEmbedding():
            return {f"{component}: {part.token}": [row] for component, row in part.rows.items()}
        case TokenResidual():
            return {f"{component}: {part.words}": [residual] for component, residual in part.residuals.items()}
        case Insertion():
            return {name: [part.down[name], part.up[name]] for name in part.down}
        case SteeringVector():
            return {name: [vector] for name, vector in part.vectors.items()}
        case InitialNoise():
            return {"start noise": [part.noise]}
        case Adapters():
            return {
                name: [part.tensors[each] for each in part.tensors if each.rpartition("/")[0] == name]
                for name in part.branches
            }
        case ClassifierHead():
            return {"head": [part.bias, part.weight]}
    return {}


def norm(part: Part, name: str) -> float | None:
    """Euclidean norm of what a part adds to a tensor at weight 1; None where that depends on the base."""
    if isinstance(part, LowRankDelta):  # ||up down||^2 = trace(up'up down down'), without the product itself
        up, down = part.up[name].double(), part.down[name].double()
        return abs(part.scales[name]) * math.sqrt(max(0.0, float(((up.mT @ up) * (down @ down.mT)).sum())))
    if isinstance(part, DenseDelta):
        return float(part.deltas[name].double().norm())
    if isinstance(part, SparseWeights) and part.delta:
        return float(part.values[name].double().norm())
    return None


def detail(part: Part) -> str:
    """What is particular to a part, such as its precision or rank."""
    match part:
        case SparseWeights():
            return f"{part.bits} bits, {'added' if part.delta else 'set'}"
        case LowRankDelta():
            return _ranks(sorted({up.shape[1] for up in part.up.values()}))
        case TokenEmbedding():
            return part.token
        case TokenResidual():
            return part.words
        case Insertion():
            ranks = sorted({down.shape[0] for down in part.down.values()})
            return f"{_ranks(ranks)}, {part.activation}, scale {part.scale:g}"
        case Adapters():
            ways = sorted({f"{branch.kind}, scaled by {branch.scaling}" for branch in part.branches.values()})
            return "; ".join(ways)
        case ClassifierHead():
            return f"{len(part.labels)} classes"
    return ""


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]} to {ranks[-1]}"


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
