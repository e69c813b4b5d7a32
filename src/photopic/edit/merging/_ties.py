"""TIES-Merging: small changes are trimmed, each entry elects a sign, and the mean is taken of the changes that agree with it.

Paper: TIES-Merging: Resolving Interference When Merging Models (arXiv:2306.01708). Changed: trimmed within each tensor, as mergekit
and peft do, not over the whole change at once. The edits are gone through twice, so that only one is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.edit.merging._common import Changes, Sums, Totals


def elected(changes: Changes, weights: Sequence[float], keep: float) -> Totals:
    """The mean of the trimmed changes that agree with the sign of their sum, each times its weight.

    Args:
        changes: What each edit adds to the base.
        weights: One an edit; they scale the changes after the signs are elected.
        keep: Share of each tensor's entries that an edit keeps, those it changes most.
    """
    signs, sums, voters = Sums(), Sums(), Sums()
    for number in range(len(changes)):
        for name, change in changes.of(number):
            signs.add(name, trimmed(change, keep))  # elect: the sign of the total mass
    for number, weight in enumerate(weights):
        for name, change in changes.of(number):
            kept = trimmed(change, keep)
            agrees = (kept.sign() == signs.totals[name].sign()) & (kept != 0)  # (entries,)
            sums.add(name, weight * kept * agrees)
            voters.add(name, agrees.float())
    return {name: total / voters.totals[name].clamp(min=1) for name, total in sums.totals.items()}  # disjoint mean


def trimmed(change: Float[Tensor, " entries"], keep: float) -> Float[Tensor, " entries"]:
    """The entries of largest magnitude, at least one; 0 elsewhere.

    Example:
        >>> trimmed(torch.tensor([1.0, -3.0, 2.0, 0.5]), 0.5)
        tensor([ 0., -3.,  2.,  0.])
    """
    largest = change.abs().topk(max(1, int(keep * len(change)))).indices
    return torch.zeros_like(change).index_copy_(0, largest, change[largest])
