"""What becomes of an entry that several edits change: rules from their changes to one, by which edits are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

# From the changes of each edit, 0 where it touches nothing, to one change an entry.
Rule = Callable[[Float[Tensor, "edits entries"]], Float[Tensor, " entries"]]


def summed(changes: Float[Tensor, "edits entries"]) -> Float[Tensor, " entries"]:
    """The sum of all changes.

    Example:
        >>> import torch
        >>> summed(torch.tensor([[1.0], [3.0]])).tolist()
        [4.0]
    """
    return changes.sum(0)


def elected(changes: Float[Tensor, "edits entries"]) -> Float[Tensor, " entries"]:
    """The mean of the changes that agree with the sign of the sum (TIES-Merging, arXiv 2306.01708, without its trimming).

    Example:
        >>> import torch
        >>> elected(torch.tensor([[1.0], [3.0], [-2.0]])).tolist()
        [2.0]
    """
    agrees = (changes.sign() == changes.sum(0).sign()) & (changes != 0)  # (edits, entries)
    return (changes * agrees).sum(0) / agrees.sum(0).clamp(min=1)


RULES: Mapping[str, Rule] = {"sum": summed, "ties": elected}
