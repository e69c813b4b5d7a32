"""A classification loss with a term that loosens chosen ties between classes.

The neural-dependencies paper (arXiv:2211.12339) says that such a regulariser can be built and no formula of it is confirmed: **this
is our reading, not the paper's**, and it is off unless ``our_reading`` is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from photopic.core.errors import DataError


def classification_loss(
    logits: Float[Tensor, "n classes"],
    labels: Int[Tensor, "n"],
    *,
    edges: Sequence[tuple[int, int]] = (),
    our_reading: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy, and with ``our_reading`` above 0 that many times the penalty of ``edges``.

    Args:
        logits: Of a batch.
        labels: Its classes.
        edges: Pairs of classes whose tie is to be loosened.
        our_reading: Weight of the penalty, which is our reading and not the paper's; 0 leaves it out.

    Raises:
        DataError: If an edge names a class that is not there, or the weight is given without edges.

    Example:
        >>> float(classification_loss(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))) == float(torch.tensor(2.0).log())
        True
    """
    loss = cross_entropy(logits, labels)
    return loss + our_reading * dependency_penalty(logits, edges) if our_reading else loss


def dependency_penalty(logits: Float[Tensor, "n classes"], edges: Sequence[tuple[int, int]]) -> Float[Tensor, ""]:
    """Mean over the edges (i, j) of |corr(f_i, f_j)| in the batch: 1 where they are tied, near 0 where they are not.

    Raises:
        DataError: If there is no edge, an edge names a class that is not there, or the batch has one sample.

    Example:
        >>> dependency_penalty(torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]), [(0, 1)])
        tensor(1.0000)
    """
    classes = logits.shape[1]
    if not edges or len(logits) < 2 or any(not 0 <= at < classes for edge in edges for at in edge):
        raise DataError(
            f"dependency penalty: expected edges between classes 0 to {classes - 1} and at least two samples, "
            f"found {list(edges)[:5]} and {len(logits)}"
        )
    left, right = torch.tensor(list(edges), device=logits.device).T  # (edges,) each
    away = logits - logits.mean(0)  # (n, classes)
    unit = away / away.norm(dim=0).clamp_min(1e-12)  # columns of length 1, so that their products are correlations
    return (unit[:, left] * unit[:, right]).sum(0).abs().mean()
