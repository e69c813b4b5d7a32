"""Mixtures of two embeddings on the unit sphere, and contrasts with them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.learning.losses.contrastive import multi_positive_contrast

NEAR = 1e-3  # sin of the angle below which two points are mixed along their chord


def geodesic(
    first: Float[Tensor, "n dim"], second: Float[Tensor, "n dim"], share: Float[Tensor, "n 1"] | float
) -> Float[Tensor, "n dim"]:
    """The point of the great arc from ``second`` to ``first`` at a share of its length; of length 1, as they are.

    m(a, b) = a sin(share theta) / sin theta + b sin((1 - share) theta) / sin theta, where theta is the angle between them.

    Source: Geodesic Multi-Modal Mixup (arXiv:2203.03897), equation 3.

    Example:
        >>> geodesic(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])
    """
    cosine = (first * second).sum(-1, keepdim=True)
    # the angle by its tangent: arccos loses half its digits, and its gradient, near 1
    sine = (first - cosine * second).norm(dim=-1, keepdim=True)
    theta = torch.atan2(sine, cosine)
    arc = first * torch.sin(share * theta) + second * torch.sin((1 - share) * theta)
    chord = share * first + (1 - share) * second
    return torch.nn.functional.normalize(torch.where(sine > NEAR, arc / sine.clamp(min=NEAR), chord), dim=-1)


def mixed_negatives(
    anchors: Float[Tensor, "n dim"],
    positives: Float[Tensor, "n dim"],
    mixed: Float[Tensor, "n dim"],
    right: Float[Tensor, "n n"],
    scale: float,
) -> Float[Tensor, ""]:
    """A contrast whose negatives are mixtures: -log exp(a_i p_i) / (exp(a_i p_i) + sum_j exp(a_i m_j)), j not right for i.

    Args:
        anchors: Of one modality.
        positives: Of the other, each for its anchor.
        mixed: One mixture of each pair.
        right: 1 where the pair j is true of the anchor i too, so that its mixture is no negative.
        scale: Inverse temperature.

    Source: Geodesic Multi-Modal Mixup (arXiv:2203.03897), equation 4.
    """
    n = len(anchors)
    positive = (anchors * positives).sum(1, keepdim=True)  # (n, 1)
    logits = scale * torch.cat([positive, anchors @ mixed.mT], 1)  # (n, 1 + n)
    first = torch.zeros_like(logits)
    first[:, 0] = 1.0
    allowed = torch.cat([torch.ones(n, 1, dtype=torch.bool, device=right.device), right == 0], 1)
    return multi_positive_contrast(logits, first, allowed)
