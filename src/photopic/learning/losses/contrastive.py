"""The contrastive loss of a batch in which an anchor may have several positives: InfoNCE where each has one."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def multi_positive_contrast(
    logits: Float[Tensor, "anchors others"],
    positives: Float[Tensor, "anchors others"],
    allowed: Bool[Tensor, "anchors others"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over anchors of -1 / |P_i| sum_{j in P_i} log softmax_j(s_ij / tau), with weights in the place of membership.

    Args:
        logits: s / tau, such as scaled cosines.
        positives: Weight of each other as a positive of the anchor, 0 where it is none. An anchor without any is left out.
        allowed: What stands in the softmax of each anchor, its positives among it; None: everything.

    Returns:
        The loss; 0 where no anchor has a positive.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> pairs = multi_positive_contrast(logits, torch.eye(2))
        >>> torch.allclose(pairs, torch.nn.functional.cross_entropy(logits, torch.arange(2)))  # P_i = {i}: InfoNCE
        True
    """
    total = positives.sum(1)  # (anchors,)
    if not bool((total > 0).any()):
        return logits.sum() * 0.0
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    chances = logits.log_softmax(1)
    # a weight of 0 times log 0 of what is not allowed would be nan
    each = -torch.where(positives > 0, positives * chances, 0.0).sum(1)
    return (each[total > 0] / total[total > 0]).mean()
