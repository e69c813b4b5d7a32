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


def info_nce(logits: Float[Tensor, "n m"], right: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """CLIP's loss: pictures find their texts among all, texts their pictures; texts of no picture are negatives of pictures alone.

    Args:
        logits: Scaled cosines of pictures and texts; the texts after the first n belong to no picture.
        right: 1 where a text is true of a picture.

    Source: CLIP (arXiv:2103.00020); with texts of no picture NegCLIP's (arXiv:2210.01936).

    Example:
        >>> logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 9.0]])  # a text of no picture is as near as the second's own
        >>> round(info_nce(logits, torch.eye(2, 3)).item(), 3)  # log(2) / 4
        0.173
    """
    # texts without a picture have no right answer, so the second direction leaves them out
    return (multi_positive_contrast(logits, right) + multi_positive_contrast(logits.mT, right.mT)) / 2


def info_loob(logits: Float[Tensor, "n n"], right: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The leave-one-out bound: -s_ii + log sum_{j: not right} exp(s_ij), meaned over i.

    The positive does not stand in the denominator, so the gradient of its score is -1 / n however near it is, where that of InfoNCE
    vanishes. Without a bound: keep the temperature fixed.

    Args:
        logits: s / tau; the positive of each row is on the diagonal.
        right: 1 where an entry is no negative, the diagonal among it. A row without a negative is left out.

    Source: CLOOB (arXiv:2110.11316), equation 5, without the constant log (n - 1).

    Example:
        >>> info_loob(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.eye(2))
        tensor(-2.)
    """
    has_negatives = (right == 0).any(1)
    if not bool(has_negatives.any()):
        return logits.sum() * 0.0
    negatives = logits.masked_fill(right > 0, -torch.inf)[has_negatives].logsumexp(1)
    return (negatives - logits.diagonal()[has_negatives]).mean()


def retrieved(states: Float[Tensor, "n dim"], stored: Float[Tensor, "m dim"], beta: float) -> Float[Tensor, "n dim"]:
    """What a modern Hopfield network gives back for each state: stored^T softmax(beta stored state), of length 1.

    Args:
        states: Of length 1.
        stored: What is remembered, of length 1.
        beta: Inverse temperature; the larger, the nearer to the one stored embedding that is nearest.

    Source: CLOOB (arXiv:2110.11316), equations 8 to 11.

    Example:
        >>> retrieved(torch.tensor([[0.6, 0.8]]), torch.eye(2), beta=1000.0)
        tensor([[0., 1.]])
    """
    weights = (beta * states @ stored.mT).softmax(1)  # (n, m)
    return torch.nn.functional.normalize(weights @ stored, dim=-1)
