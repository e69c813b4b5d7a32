"""DARE: most of each change is dropped at random and the rest enlarged to keep its mean, so that sums collide less.

Paper: Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch (arXiv:2311.03099).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from photopic.edit.merging._common import Changes, Sums, Totals


def dropped_and_rescaled(changes: Changes, weights: Sequence[float], drop: float, seed: int) -> Totals:
    """The weighted sum of the changes, each with a share of its entries dropped and the others divided by what is left.

    Args:
        changes: What each edit adds to the base.
        weights: One an edit.
        drop: Share of the entries that are dropped.
        seed: Of the draw; an edit's entries depend on it, the edit's place and the tensor alone.
    """
    sums = Sums()
    for number, weight in enumerate(weights):
        for place, (name, change) in enumerate(changes.of(number)):
            state = np.random.SeedSequence((seed, number, place)).generate_state(1)[0]
            sums.add(name, weight * thinned(change, 1 - drop, torch.Generator().manual_seed(int(state))))
    return sums.totals


def thinned(change: Float[Tensor, " entries"], keep: float, generator: torch.Generator) -> Float[Tensor, " entries"]:
    """Each entry with probability ``keep``, divided by it; else 0, so that the expected change is the change.

    Example:
        >>> thinned(torch.ones(8), 0.5, torch.Generator().manual_seed(0)).unique()
        tensor([0., 2.])
    """
    mask = torch.bernoulli(torch.full_like(change, keep), generator=generator)  # m_t of the paper's Eq. 4, one an entry
    return change * mask / keep
