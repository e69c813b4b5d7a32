"""How embeddings of length 1 lie on their sphere: how evenly, how near the two of a pair, in how many directions.

Source: uniformity and alignment of *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
Hypersphere* (arXiv:2005.10242); the effective rank of Roy and Vetterli (2007).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def uniformity(points: Float[Tensor, "n dim"]) -> float:
    """log of the mean of exp(-2 |x - y|^2) over pairs of different points: 0 where all are one, lower the more even.

    Args:
        points: Of length 1, two or more.

    Example:
        >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))  # |x - y|^2 = 4
        -8.0
    """
    squares = torch.pdist(points.double()) ** 2  # (n (n - 1) / 2,)
    return float((-2 * squares).exp().mean().log())


def alignment(first: Float[Tensor, "n dim"], second: Float[Tensor, "n dim"]) -> float:
    """The mean squared distance of the two of a pair; 0 where they are one.

    Example:
        >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        2.0
    """
    return float((first.double() - second.double()).square().sum(1).mean())


def effective_rank(points: Float[Tensor, "n dim"]) -> float:
    """exp of the entropy of the covariance's eigenvalues as shares: how many directions the points use, 1 to dim.

    Args:
        points: Two or more that differ.

    Example:
        >>> square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(effective_rank(square), 6)
        2.0
    """
    centred = points.double() - points.double().mean(0)
    # eigenvalues of the covariance are squared singular values over n; the n falls out of the shares
    energies = torch.linalg.svdvals(centred) ** 2
    shares = energies / energies.sum()
    return float(torch.special.entr(shares).sum().exp())
