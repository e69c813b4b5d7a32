"""A small module with a shared parameter, and an edit of it with a part of every kind that a plain module takes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from photopic.core.edits import (
    DenseDelta,
    Edit,
    InitialNoise,
    LowRankDelta,
    ParallelAdapter,
    Part,
    SparseWeights,
    SteeringVector,
    TokenEmbedding,
    TokenResidual,
    ZeroedWeights,
)
from photopic.core.fingerprint import fingerprint
from photopic.core.identity import Fingerprint


class Small(nn.Module):
    """Two linear layers and a second name for the first one's weight."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.one, self.two = nn.Linear(7, 5), nn.Linear(5, 6)
            self.tied = nn.Linear(7, 5)
        self.tied.weight = self.one.weight


NAMES = [f"m.{name}" for name in Small().state_dict()]


@cache
def base(seed: int = 0) -> Fingerprint:
    """Of the small module."""
    return fingerprint({"m": Small(seed)}, f"small-{seed}", NAMES)


def at(*positions: int) -> Tensor:
    """Positions as an edit wants them."""
    return torch.tensor(positions, dtype=torch.int64)


def edit(*parts: Part, seed: int = 0, **provenance: Any) -> Edit:
    """An edit of the small module."""
    return Edit(parts, base(seed), provenance)


def weight_parts() -> tuple[Part, ...]:
    """A part of every kind that changes weights, at every precision."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    return (
        ZeroedWeights({"m.one.weight": at(0, 4, 9)}),
        SparseWeights({"m.two.weight": at(0, 3, 9)}, {"m.two.weight": normal(3)}),
        SparseWeights.rounded({"m.two.weight": at(1, 2, 4, 5, 6)}, {"m.two.weight": normal(5)}, 2),
        SparseWeights.rounded({"m.two.weight": at(10, 12)}, {"m.two.weight": normal(2)}, 16),
        SparseWeights.rounded({"m.two.bias": at(1, 3)}, {"m.two.bias": normal(2)}, 8, delta=True),
        LowRankDelta({"m.one.weight": normal(5, 2)}, {"m.one.weight": normal(2, 7)}, {"m.one.weight": 0.5}),
        DenseDelta({"m.one.bias": normal(5)}),
    )


def hook_parts() -> tuple[Part, ...]:
    """What hooks modules."""
    down, up = torch.ones(2, 7), torch.full((5, 2), 0.5)
    return ParallelAdapter({"m.one": down}, {"m.one": up}), SteeringVector({"m.two": torch.arange(6.0)})


def other_parts() -> tuple[Part, ...]:
    """What needs a text encoder or a sampler."""
    return (
        TokenEmbedding("<mine>", {"text_encoder": torch.linspace(-1, 1, 8).half()}),
        TokenResidual("bear", {"text_encoder": (7,)}, {"text_encoder": torch.ones(1, 8)}),
        InitialNoise(torch.zeros(4, 2, 2)),
    )
