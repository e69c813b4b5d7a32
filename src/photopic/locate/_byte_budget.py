"""How many positions an edit can have so that its file keeps within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights, ZeroedWeights
from photopic.core.edits.file import to_bytes
from photopic.core.edits.part import Part
from photopic.core.errors import DataError
from photopic.learning.parameters.soft_mask import WeightMask
from photopic.learning.parameters.sparse_values import Bits

Chosen = dict[str, Tensor]  # flat positions by name


@dataclass(frozen=True)
class Budget:
    """The largest size of an edit's file.

    Attributes:
        limit: Bytes, or None for any size.
        made: The edit that a part of zeroed or learnt positions becomes, with everything else its file will hold.
        bits: Of the values that will be learnt at the positions; None: they are shut.
    """

    limit: int | None
    made: Callable[[Part], Edit]
    bits: Bits | None

    def share(self, mask: WeightMask) -> float:
        """The share of all masks that fits, wherever they are: of masks drawn at random.

        Raises:
            DataError: If not even one fits.
        """
        draw = torch.Generator().manual_seed(0)
        order = torch.randperm(mask.count, generator=draw)
        return self._most(lambda share: mask.entries(order[: round(share * mask.count)]), mask.count)

    def best(self, mask: WeightMask, choose: Callable[[float], Chosen]) -> Chosen:
        """The positions of as many masks as fit, chosen by their share.

        Raises:
            DataError: If not even one fits.
        """
        return choose(self._most(choose, mask.count))

    def _most(self, choose: Callable[[float], Chosen], count: int) -> float:
        assert self.limit is not None

        def size(number: int) -> int:
            return len(to_bytes(self.made(_part(choose(number / count), self.bits))))

        # low fits, nothing above high does; doubled first, or the files tried would be as large as the model
        low, high = 0, 1
        while high < count and size(high) <= self.limit:
            low, high = high, min(2 * high, count)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if size(middle) <= self.limit else (low, middle - 1)
        if not low:
            least = size(1) + 16  # the number of bytes is in the file too, with more digits then
            raise DataError(f"bytes: expected {least} or more for the smallest edit here, found {self.limit}; raise it")
        return low / count


def _part(positions: Chosen, bits: Bits | None) -> ZeroedWeights | SparseWeights:
    """The part that shuts positions, or one with values of so many bits there that take no less room than learnt ones."""
    if bits is None:
        return ZeroedWeights(positions)
    draw = torch.Generator().manual_seed(0)
    values = {}
    for name, index in positions.items():
        count = (len(index),)
        digits = torch.randint(1024, 2048, count, generator=draw)  # all eleven of a number of 16 bits at random
        even = digits.double() * 2.0 ** torch.randint(-24, 2, count, generator=draw)  # and its exponent
        values[name] = torch.randint(4, count, generator=draw).float() if bits == 2 else even.float()
    return SparseWeights(positions, values, bits)
