"""Losses of thin structures, of which few pixels are: the weighted focal loss and the dice loss.

Papers: *Focal Loss for Dense Object Detection* (arXiv:1708.02002) and *V-Net* (arXiv:1606.04797), whose dice has squares below.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def weighted_focal_loss(
    logits: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], weight: float = 0.9, gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Mean of -a_t (1 - p_t)^gamma log p_t.

    Args:
        logits: Of the thin structure.
        target: 1 on it, 0 elsewhere.
        weight: a_t of the structure, 0 to 1; all else has one minus it.
        gamma: 0 or more; how much less pixels count that are right already.

    Example:
        >>> logits = torch.tensor([0.5, -2.0])
        >>> round(weighted_focal_loss(logits, torch.tensor([1.0, 0.0]), 0.5, 0.0).item(), 4)  # half of cross-entropy
        0.1503
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # -log p_t
    missed = (-torch.expm1(-entropy)).clamp_min(1e-12)  # 1 - p_t; above 0, where any power has a slope
    return ((target * weight + (1 - target) * (1 - weight)) * missed**gamma * entropy).mean()


def dice_loss(chances: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """1 - (2 sum pt + 1) / (sum p^2 + sum t^2 + 1), over all pixels of all pictures together.

    Example:
        >>> dice_loss(torch.eye(3), torch.eye(3)).item()
        0.0
    """
    overlap = 2 * (chances * target).sum() + 1
    return 1 - overlap / ((chances**2).sum() + (target**2).sum() + 1)
