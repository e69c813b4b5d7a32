"""Few levels instead of many values: Lloyd's algorithm in one dimension, for values stored at 2 bits."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROUNDS = 50  # of Lloyd's algorithm; it ends earlier where the groups stay


def fit_levels(values: Float[Tensor, " count"], levels: int = 4) -> Float[Tensor, " fitted"]:
    """The levels with the least squared error, as Lloyd's algorithm finds them from the means of equal parts.

    Args:
        values: Any number of values.
        levels: How many levels, 1 or more.

    Returns:
        Ascending float32 levels; with ``levels`` distinct values or fewer, or with NaN or infinity, the distinct values.

    Example:
        >>> fit_levels(torch.tensor([0.0, 2.0, 10.0, 12.0]), levels=2)
        tensor([ 1., 11.])
    """
    ordered = values.detach().cpu().double().sort().values  # on the CPU: the same levels on every device
    distinct = ordered.unique_consecutive()
    if len(distinct) <= levels or not bool(torch.isfinite(distinct).all()):
        return distinct.float().to(values.device)
    fitted = torch.stack([part.mean() for part in ordered.tensor_split(levels)])
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])  # of a group: the difference at its ends
    for _ in range(ROUNDS):
        inner = torch.searchsorted(ordered, _borders(fitted), right=True)  # a tie goes to the lower level
        ends = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(ordered))])
        counts = ends.diff()
        updated = torch.where(counts > 0, sums[ends].diff() / counts.clamp(min=1), fitted)
        if torch.equal(updated, fitted):
            break
        fitted = updated
    return fitted.float().to(values.device)


def level_codes(values: Float[Tensor, " count"], fitted: Float[Tensor, " fitted"]) -> Int[Tensor, " count"]:
    """The index of the nearest of ascending levels, one a value; a tie goes to the lower level.

    Example:
        >>> level_codes(torch.tensor([0.4, 0.5, 3.0]), torch.tensor([0.0, 1.0]))
        tensor([0, 0, 1])
    """
    return torch.bucketize(values.detach().double(), _borders(fitted.double()))


def to_levels(values: Float[Tensor, " count"], levels: int = 4) -> Float[Tensor, " count"]:
    """Each value as the nearest of the levels fitted to all of them, float32.

    Args:
        values: Any number of values; NaN or infinity anywhere leaves all of them as they are.
        levels: How many levels, 1 or more; with as many distinct values or fewer nothing changes.

    Example:
        >>> to_levels(torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 3.0]))
        tensor([0.0500, 0.0500, 1.0500, 1.0500, 2.0000, 3.0000])
    """
    if not bool(torch.isfinite(values).all()):
        return values.float()
    fitted = fit_levels(values, levels)
    return fitted[level_codes(values, fitted)]


def _borders(fitted: Float[Tensor, " fitted"]) -> Float[Tensor, " between"]:
    return (fitted[1:] + fitted[:-1]) / 2
