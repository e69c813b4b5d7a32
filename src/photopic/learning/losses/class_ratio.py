"""Losses of segmentation without labels: the entropy of every pixel, and how far predicted class ratios are from a prior.

Paper: *Source-Free Domain Adaptation for Image Segmentation* (arXiv:2108.03152).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Direction = Literal["prior-first", "predicted-first"]


def pixel_entropy(
    chances: Float[Tensor, "n classes height width"], weights: Float[Tensor, " classes"] | None = None
) -> Float[Tensor, ""]:
    """Mean over pixels of -sum_k w_k p_k log p_k, in nats.

    Args:
        chances: p, of each class at each pixel.
        weights: w, of each class; None: 1 each.

    Example:
        >>> round(float(pixel_entropy(torch.full((1, 2, 3, 3), 0.5))), 4)  # log 2
        0.6931
    """
    terms = -torch.special.xlogy(chances, chances.clamp_min(1e-10))  # (n, classes, h, w)
    return (terms if weights is None else terms * weights[:, None, None]).sum(1).mean()


def class_weights(prior: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """Inverse of the prior, with mean 1, so that rare classes count: sum_k w_k = K.

    Example:
        >>> class_weights(torch.tensor([0.75, 0.25]))
        tensor([0.5000, 1.5000])
    """
    inverse = 1 / prior.clamp_min(1e-10)
    return inverse / inverse.mean()


def ratio_divergence(
    ratios: Float[Tensor, "n classes"], prior: Float[Tensor, " classes"], direction: Direction
) -> Float[Tensor, ""]:
    """Mean KL divergence of class ratios and a prior, in nats.

    Args:
        ratios: Predicted, each of sum 1.
        prior: Of sum 1.
        direction: ``prior-first``: KL(prior, predicted) of AdaEnt. ``predicted-first``: KL(predicted, prior) of AdaMI, which with
            the entropy of pixels is their mutual information with the classes, up to sign, plus a cross-entropy with the prior.

    Example:
        >>> half, uneven = torch.tensor([[0.5, 0.5]]), torch.tensor([0.9, 0.1])
        >>> [round(float(ratio_divergence(half, uneven, way)), 4) for way in ("prior-first", "predicted-first")]
        [0.3681, 0.5108]
    """
    first, second = (prior, ratios) if direction == "prior-first" else (ratios, prior)
    terms = torch.special.xlogy(first, first.clamp_min(1e-10)) - first * second.clamp_min(1e-10).log()
    return terms.sum(-1).mean()
