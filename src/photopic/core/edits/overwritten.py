"""The entries that edits overwrote on a live model: put back exactly, and never over what somebody else wrote since.

Counters of changes and addresses do not tell: a write through ``tensor.data`` moves neither. So the content is compared: every
entry that was written, and a few entries of every tensor, with what they were when the stack last left the model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from photopic.core.edits.overlap import Writes
from photopic.core.edits.positions import EDITABLE, Positions, apply, read_entries, union, write_entries
from photopic.core.fingerprint import named_tensors

_SAMPLED = 8  # entries of every tensor; whoever writes to a tensor as a whole changes one of them


class Overwritten:
    """What was written over, by tensor."""

    def __init__(self) -> None:
        self._base: dict[str, tuple[Positions, Tensor]] = {}  # positions and the base's entries there
        self._written: dict[str, Tensor] = {}  # what stands there since
        self._samples: dict[str, tuple[Tensor, Tensor]] = {}  # some positions of every tensor, and what was left there

    def write(self, tensors: Mapping[str, Tensor], pending: Writes) -> None:
        """Write one change after the other, and keep aside what was there."""
        for name, writes in pending.items():
            positions = union([write.indices for write in writes])
            self._base[name] = (positions, read_entries(tensors[name], positions))  # before the first write: an
            for write in writes:  # interrupt finds it; right after they were read entries are still in the cache
                apply(tensors[name], write)
            self._written[name] = read_entries(tensors[name], positions)

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """The base again; done twice it changes nothing."""
        for name, (positions, entries) in self._base.items():
            write_entries(tensors[name], positions, entries)
        self.forget()

    def forget(self) -> None:
        """What is there now is the base."""
        self._base, self._written, self._samples = {}, {}, {}

    def remember(self, tensors: Mapping[str, Tensor]) -> None:
        """The model as it is left now."""
        at = {name: _places(each.numel()) for name, each in tensors.items() if _is_read(each)}
        self._samples = {name: (places, read_entries(tensors[name], places)) for name, places in at.items()}

    def changed(self, tensors: Mapping[str, Tensor]) -> str:
        """The first tensor that somebody else changed since, and how; empty for none."""
        for name, (positions, _) in self._base.items():
            tensor = tensors.get(name)
            if tensor is None or not _is_read(tensor):
                return f"{name} is gone" if tensor is None else f"{name} has become {str(tensor.dtype)[6:]}"
            if name in self._written and not _same(self._written[name], read_entries(tensor, positions)):
                return f"{name} has other entries than were written"
        for name, (places, sample) in self._samples.items():  # a vocabulary that grew keeps its first rows
            tensor = tensors.get(name)
            if tensor is None or not _is_read(tensor):
                continue  # wrapped or brought elsewhere; what was written to it is checked above
            if tensor.numel() <= int(places.max()) or not _same(sample, read_entries(tensor, places)):
                return f"{name} has other entries"
        return ""


def tensors_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors by name; what peft wrapped is found under its own name too."""
    found = named_tensors(modules)
    wrapped = {name.replace(".base_layer.", "."): each for name, each in found.items() if ".base_layer." in name}
    return wrapped | found


def _is_read(tensor: Tensor) -> bool:
    return tensor.dtype in EDITABLE and not tensor.is_meta and tensor.numel() > 0 and type(tensor.data) is Tensor


def _places(size: int) -> Tensor:
    """Positions spread over a tensor of a size, not all of one column."""
    steps = torch.arange(_SAMPLED, dtype=torch.int64)
    return (steps * (size // _SAMPLED + 1) + steps * 37) % size


def _same(kept: Tensor, found: Tensor) -> bool:
    """Whether entries are those that were kept, or what a move to another precision made of them."""
    if kept.shape != found.shape:
        return False
    return torch.equal(kept.to(found.device, found.dtype).view(torch.uint8), found.contiguous().view(torch.uint8))
