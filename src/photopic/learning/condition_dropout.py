"""Which conditions a picture keeps in a training step, by the rule of Composer (arXiv:2302.09778)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

DROP = 0.5  # probability that a condition is dropped
DROP_INTENSITY = 0.7  # it says most of a picture, and would starve the others
NONE = 0.1  # probability that all are dropped
ALL = 0.1  # probability that all are kept


def kept_conditions(
    count: int, names: Sequence[str], generator: torch.Generator, *, intensity: float = DROP_INTENSITY
) -> Bool[Tensor, "count names"]:
    """Draw for each picture which conditions it keeps: all, none, or each by itself.

    So a condition is kept with probability 0.1 + 0.8 x 0.5 = 0.50, intensity with 0.1 + 0.8 x 0.3 = 0.34.

    Args:
        count: Of pictures.
        names: Of the conditions.
        generator: Draws them.
        intensity: Probability that intensity is dropped.

    Example:
        >>> kept_conditions(10_000, ["palette", "intensity"], torch.Generator().manual_seed(0)).double().mean(0).round(decimals=1)
        tensor([0.5000, 0.3000], dtype=torch.float64)
    """
    drop = torch.tensor([intensity if name == "intensity" else DROP for name in names])
    kept = torch.rand((count, len(names)), generator=generator) >= drop
    share = torch.rand((count, 1), generator=generator)
    return torch.where(share < NONE, False, torch.where(share < NONE + ALL, True, kept))
