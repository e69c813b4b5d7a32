"""A few entries of every tensor of a model, by which a write to a tensor as a whole is noticed whoever made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from photopic.core.edits.positions import EDITABLE

_SAMPLED = 8  # entries of a tensor; whoever writes to a tensor as a whole changes one of them
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an entry: compared faster than single bytes


class Samples:
    """What stands in a model now.

    Args:
        tensors: By name; those that have no plain entries here are left out.

    Example:
        >>> weight = torch.zeros(3, 3)
        >>> seen = Samples({"w": weight})
        >>> _ = weight.data.add_(1)
        >>> seen.differs({"w": weight})
        'w'
    """

    @torch.no_grad()
    def __init__(self, tensors: Mapping[str, Tensor]):
        readable = {name: each for name, each in tensors.items() if is_read(each)}
        self._spread = {name: _spread(each.numel()) for name, each in readable.items()}
        groups: dict[tuple[torch.dtype, torch.device], list[str]] = {}
        for name, each in readable.items():
            groups.setdefault((each.dtype, each.device), []).append(name)
        # one copy a precision and device: (tensors x 8,)
        self._kept = [(names, torch.cat([self._some(readable[n], n) for n in names])) for names in groups.values()]

    @torch.no_grad()
    def differs(self, tensors: Mapping[str, Tensor]) -> str:
        """The name of the first tensor that has other entries; empty for none.

        What is gone, wrapped or cannot be read is passed over; a vocabulary that grew keeps its first rows.
        """
        for names, kept in self._kept:
            there = {name: tensors[name] for name in names if name in tensors and is_read(tensors[name])}
            found = {name: self._some(each, name) for name, each in there.items()}
            if not _same_together(kept, list(found.values())):
                parts = zip(names, kept.split([self._spread[name][0] for name in names]), strict=True)
                for name, part in parts:
                    if name in found and not same_bits(part, found[name]):
                        return name
        return ""

    def _some(self, tensor: Tensor, name: str) -> Shaped[Tensor, " count"]:
        """The sampled entries, in the order in which the tensor counts them; none if it has become too small for them."""
        count, step = self._spread[name]
        if (count - 1) * step >= tensor.numel():
            return tensor.new_empty(0)
        if tensor.is_contiguous():
            return tensor.as_strided((count,), (step,))
        return tensor.take(torch.arange(0, count * step, step, device=tensor.device))


def is_read(tensor: Tensor) -> bool:
    """Whether a tensor has plain entries that are here."""
    return tensor.dtype in EDITABLE and not tensor.is_meta and tensor.numel() > 0 and type(tensor.data) is Tensor


def same_bits(kept: Tensor, found: Tensor) -> bool:
    """Whether entries are those that were kept, or what a move to another precision made of them."""
    if kept.shape != found.shape:
        return False
    bits = _BITS[found.element_size()]  # minus zero is not zero, and NaN is itself
    return torch.equal(kept.to(found.device, found.dtype).contiguous().view(bits), found.contiguous().view(bits))


def _same_together(kept: Tensor, found: Sequence[Tensor]) -> bool:
    """The same of many tensors at once; False if any of them has moved."""
    if any(each.dtype != kept.dtype or each.device != kept.device for each in found) or not found:
        return False
    return same_bits(kept, torch.cat(list(found)))


def _spread(size: int) -> tuple[int, int]:
    """How many entries of a tensor of a size, and how far they are apart: an odd step, so not all in one column."""
    step = max(1, (size - 1) // (_SAMPLED - 1))
    return min(size, _SAMPLED), step - (step > 1 and step % 2 == 0)
