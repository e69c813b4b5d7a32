"""Four scorers of links, each a question vector made of head and relation, and its nearness to the vector of a tail.

TransE (Bordes et al. 2013) ``-|h + r - t|``; DistMult (arXiv:1412.6575) ``sum h r t``; ComplEx (arXiv:1606.06357)
``Re sum h r conj(t)``; RotatE (arXiv:1902.10197) ``-|h o exp(i r) - t|``. Since all depend on the tail through a product or a
distance, a batch of questions against any number of tails is one matrix product. Complex vectors lie as real parts, then imaginary
parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Name = Literal["transe", "distmult", "complex", "rotate"]
Vectors = Float[Tensor, "b dim"]


def _halves(vectors: Vectors) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts, each (b, dim / 2)."""
    real, imaginary = vectors.chunk(2, dim=-1)
    return real, imaginary


def _times(one: Vectors, other: Vectors) -> Vectors:
    """The product of complex vectors, entry by entry."""
    (a, b), (c, d) = _halves(one), _halves(other)
    return torch.cat([a * c - b * d, a * d + b * c], -1)


def rotated(heads: Vectors, phases: Float[Tensor, "b half"]) -> Vectors:
    """Complex vectors turned by angles: h o exp(i r)."""
    return _times(heads, torch.cat([phases.cos(), phases.sin()], -1))


def product(questions: Vectors, tails: Float[Tensor, "c dim"]) -> Float[Tensor, "b c"]:
    """Inner products; of complex vectors that is Re sum q conj(t)."""
    return questions @ tails.mT


def nearness(questions: Vectors, tails: Float[Tensor, "c dim"]) -> Float[Tensor, "b c"]:
    """Minus Euclidean distances, by |q - t|^2 = |q|^2 + |t|^2 - 2 q t."""
    squared = questions.square().sum(-1, keepdim=True) + tails.square().sum(-1) - 2 * product(questions, tails)
    return -squared.clamp_min(1e-12).sqrt()  # the clamp keeps the gradient of 0 finite


@dataclass(frozen=True)
class Scorer:
    """How a scorer reads a question.

    Attributes:
        question: From head and relation vectors to the vector that tails are compared to.
        compare: From questions and tails to scores.
        relation_width: Numbers of a relation, as a share of those of a node.

    Example:
        >>> h, r, t = torch.randn(3, 1, 4)
        >>> SCORERS["distmult"](h, r, t).allclose((h * r * t).sum(-1, keepdim=True))
        True
    """

    question: Callable[[Tensor, Tensor], Tensor]
    compare: Callable[[Tensor, Tensor], Tensor]
    relation_width: float = 1.0

    def __call__(
        self, heads: Vectors, relations: Float[Tensor, "b _"], tails: Float[Tensor, "c dim"]
    ) -> Float[Tensor, "b c"]:
        return self.compare(self.question(heads, relations), tails)


SCORERS: dict[Name, Scorer] = {
    "transe": Scorer(torch.add, nearness),
    "distmult": Scorer(torch.mul, product),
    "complex": Scorer(_times, product),
    "rotate": Scorer(rotated, nearness, 0.5),  # an angle a complex entry
}
