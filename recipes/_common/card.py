"""How the cards of the models write what was measured."""

from __future__ import annotations

from torch import Tensor

from photopic.metrics.intervals import wilson


def share(hits: Tensor) -> list[float]:
    """A proportion with its Wilson interval and its number of pictures."""
    interval = wilson(int(hits.sum()), len(hits))
    return [round(value, 4) for value in interval] + [len(hits)]
