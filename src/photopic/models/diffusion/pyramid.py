"""Orthogonal decompositions of a picture into a coarse part and finer and finer details.

``down`` halves a picture by an operator D with orthonormal rows, so that noise of unit variance stays such noise; ``up`` is its
transpose. ``up(down(x))`` is the part of x that the smaller picture holds, the rest is the detail, and both are orthogonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import ModelError

KINDS = ("pool", "wavelet", "dct")


@dataclass(frozen=True)
class Pyramid:
    """How pictures are halved.

    Attributes:
        levels: How often; 0: not at all.
        kind: ``pool``: means of 2 x 2 pixels times 2; ``wavelet``: the low pass of Daubechies' second wavelet, periodic;
            ``dct``: the lower half of the frequencies of the cosine transform in both directions.

    Raises:
        ModelError: If there is no such kind or the number is negative.

    Example:
        >>> pyramid = Pyramid(1)
        >>> x = torch.arange(4.0).view(1, 1, 2, 2)
        >>> pyramid.down(x), pyramid.up(pyramid.down(x)).flatten()
        (tensor([[[[3.]]]]), tensor([1.5000, 1.5000, 1.5000, 1.5000]))
    """

    levels: int = 0
    kind: str = "pool"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.levels < 0:
            raise ModelError(
                f"pyramid: expected 0 or more levels of {', '.join(KINDS)}, found {self.levels} of {self.kind!r}"
            )

    def check(self, height: int, width: int) -> None:
        """Refuse a size that cannot be halved so often.

        Raises:
            ModelError: If it is not divisible.
        """
        if height % 2**self.levels or width % 2**self.levels:
            raise ModelError(
                f"pictures of {height} x {width} pixels cannot be halved {self.levels} times: expected sides that "
                f"{2**self.levels} divides; resize them or use fewer levels"
            )

    def down(self, x: Float[Tensor, "n c h w"], times: int = 1) -> Float[Tensor, "n c h2 w2"]:
        """Halve: D x."""
        for _ in range(times):
            if self.kind == "pool":
                x = 2 * F.avg_pool2d(x, 2)
            else:
                rows, columns = (_half(self.kind, side).to(x) for side in x.shape[2:])
                x = rows @ x @ columns.mT
        return x

    def up(self, y: Float[Tensor, "n c h w"], times: int = 1) -> Float[Tensor, "n c h2 w2"]:
        """Double: D^T y."""
        for _ in range(times):
            if self.kind == "pool":
                y = y.repeat_interleave(2, 2).repeat_interleave(2, 3) / 2
            else:
                rows, columns = (_half(self.kind, 2 * side).to(y) for side in y.shape[2:])
                y = rows.mT @ y @ columns
        return y

    def detail(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What a halved picture does not hold: (I - D^T D) x."""
        return x - self.up(self.down(x))

    def weigh(self, x: Float[Tensor, "n c h w"], factors: Sequence[Tensor]) -> Float[Tensor, "n c h w"]:
        """Multiply every component of a picture, the finest first, by its factor; with one factor that is all of it.

        Args:
            x: A picture, halved or not.
            factors: For each component what broadcasts to ``x``: the details from fine to coarse, then what is left.
        """
        if len(factors) == 1:
            return factors[0] * x
        coarse = self.down(x)
        return factors[0] * (x - self.up(coarse)) + self.up(self.weigh(coarse, factors[1:]))


@cache
def _half(kind: str, side: int) -> Tensor:
    """The one-dimensional operator, (side / 2, side) with orthonormal rows."""
    half = side // 2
    if kind == "dct":
        return _cosines(half).mT @ _cosines(side)[:half]
    root = math.sqrt(3)
    taps = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root], dtype=torch.float64) / (4 * math.sqrt(2))
    rows = torch.zeros(half, side, dtype=torch.float64)
    for row in range(half):
        for offset, tap in enumerate(taps):
            rows[row, (2 * row + offset) % side] += tap
    return rows


def _cosines(side: int) -> Tensor:
    """The orthonormal cosine transform (type II), frequencies by positions."""
    at = torch.arange(side, dtype=torch.float64)
    rows = (math.pi / side * at[:, None] * (at[None] + 0.5)).cos() * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows
