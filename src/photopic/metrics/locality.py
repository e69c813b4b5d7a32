"""How much of a change lies within a region: mean squared differences inside and outside, by area and by total."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.generator import Generator


class Change(NamedTuple):
    """Mean squared change of pictures of -1 to 1, meaned over pictures.

    Attributes:
        inside: Of the region, over its area.
        outside: Of the rest, over its area.
        inside_total: Of the region, over the whole picture.
        outside_total: Of the rest, over the whole picture; published tables divide like this.
    """

    inside: float
    outside: float
    inside_total: float
    outside_total: float

    @property
    def ratio(self) -> float:
        """Inside over outside, by area; infinite where nothing outside changes, nan where nothing does."""
        return float(np.divide(self.inside, self.outside)) if self.outside else (np.inf if self.inside else np.nan)


def change_within(
    before: Float[Tensor, "n channels height width"],
    after: Float[Tensor, "n channels height width"],
    mask: Bool[Tensor, "height width"] | Bool[Tensor, "n height width"],
) -> Change:
    """The change of pictures inside and outside a region; a mask for each picture, or one for all.

    Example:
        >>> mask = torch.tensor([[True, False], [False, False]])
        >>> change_within(torch.zeros(1, 3, 2, 2), 2.0 * mask.expand(1, 3, 2, 2), mask)
        Change(inside=4.0, outside=0.0, inside_total=1.0, outside_total=0.0)
    """
    squared = (after - before).double().square().mean(1)  # (n, height, width)
    inside = mask.to(squared.device).expand_as(squared)
    pixels, area = squared[0].numel(), inside.sum((1, 2)).double()  # area: (n,)
    sums = torch.stack([(squared * inside).sum((1, 2)), (squared * ~inside).sum((1, 2))])  # (2, n)
    areas = torch.stack([area, pixels - area]).clamp(min=1)
    by_area, by_total = (sums / areas).mean(1), (sums / pixels).mean(1)
    return Change(*by_area.tolist(), *by_total.tolist())


def check_frozen(model: Generator, w: Float[Tensor, "1 d"]) -> None:
    """Refuse a generator that draws noise anew.

    Raises:
        ModelError: If two pictures of one w differ.
    """
    with torch.no_grad():
        if not torch.equal(model.synthesize(w), model.synthesize(w)):
            raise ModelError(
                f"{model.name}: expected one picture of one w, found two that differ: random noise is on; use the stored noise"
            )
