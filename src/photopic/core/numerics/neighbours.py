"""The nearest other rows of every row, a few rows at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

ROWS = 1024  # of a similarity matrix at a time


def neighbours_of(features: Float[Tensor, "n dim"], count: int) -> Int64[Tensor, "n count"]:
    """The nearest other rows of each row, by cosine; rows have length 1.

    Example:
        >>> neighbours_of(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 1)[:, 0]
        tensor([1, 0, 1])
    """
    found = []
    for start in range(0, len(features), ROWS):  # (rows, n) at a time, so that memory stays small
        near = features[start : start + ROWS] @ features.mT
        near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        found.append(near.topk(count, dim=1).indices)
    return torch.cat(found)
