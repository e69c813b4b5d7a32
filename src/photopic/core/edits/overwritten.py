"""The entries that edits overwrote on a live model: put back exactly, and never over what somebody else wrote since.

Counters of changes and addresses do not tell: a write through ``tensor.data`` moves neither. So the content is compared: every
entry that was written, and a few entries of every tensor, with what they were when the stack last left the model. Of a tensor
written as a whole that is a sum over its bits, so that only the base's entries take memory; and where that is short these wait in a
file without a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from photopic.core.aside import StoredTensor, UnnamedFile, belongs_in_a_file
from photopic.core.edits.bit_sums import BitSums
from photopic.core.edits.overlap import Writes
from photopic.core.edits.positions import Positions, Write, apply, read_entries, union, write_blocks, write_entries
from photopic.core.edits.samples import Samples, is_read, same_bits
from photopic.core.errors import EditError
from photopic.core.fingerprint import named_tensors


@dataclass
class _Kept:
    """What was written over in one tensor."""

    positions: Positions
    base: Tensor | StoredTensor  # its entries there, (count,)
    writes: Sequence[Write]
    written: Tensor | int | None = None  # what stands there since, or the sum of its bits; None amid writing

    def write(self, tensor: Tensor, sums: BitSums) -> None:
        """Write one change after the other; right after the base's entries were read they are still in the cache."""
        for write in self.writes:
            written = apply(tensor, write)
        if self.positions is None:
            self.written = sums.of(tensor)
        else:  # several writes have other positions each
            self.written = written if len(self.writes) == 1 else read_entries(tensor, self.positions)

    def put_back(self, tensor: Tensor) -> None:
        """The base's entries again."""
        base = self.base
        if isinstance(base, StoredTensor) and tensor.is_contiguous():
            write_blocks(tensor, base.blocks())
        else:
            write_entries(tensor, self.positions, base.read() if isinstance(base, StoredTensor) else base)

    def stands(self, tensor: Tensor, sums: BitSums) -> bool:
        """Whether what was written still stands there, or what a move to another precision makes of it."""
        if isinstance(self.written, Tensor):
            return same_bits(self.written, read_entries(tensor, self.positions))
        if self.written is None or tensor.numel() != self.base.numel():
            return self.written is None
        if tensor.dtype == self.base.dtype:
            return sums.of(tensor) == self.written
        before = (self.base.read() if isinstance(self.base, StoredTensor) else self.base.clone()).view(tensor.shape)
        for write in self.writes:  # once more, to be rounded as the model was
            apply(before, write)
        return sums.of(before) == self.written and same_bits(before, tensor.detach())


class Overwritten:
    """What was written over, by tensor."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._samples = Samples({})

    def write(self, tensors: Mapping[str, Tensor], pending: Writes) -> None:
        """Write the changes of each tensor, and keep aside what was there.

        Raises:
            EditError: If a file for it has no room.
        """
        sums, touched = BitSums(), {name: union([each.indices for each in writes]) for name, writes in pending.items()}
        try:
            read = _reader([tensors[name] for name, positions in touched.items() if positions is None])
            for name, writes in pending.items():
                self._kept[name] = _Kept(touched[name], read(tensors[name], touched[name]), writes)
                self._kept[name].write(tensors[name], sums)  # an interrupt finds the base's entries in its place
        except OSError as error:
            raise EditError(
                f"expected room for the base's entries among temporary files, found {error.strerror}; "
                "set TMPDIR to a folder with room"
            ) from error

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """The base again; done twice it changes nothing."""
        for name, kept in self._kept.items():
            kept.put_back(tensors[name])
        self.forget()

    def forget(self) -> None:
        """What is there now is the base."""
        self._kept, self._samples = {}, Samples({})

    def remember(self, tensors: Mapping[str, Tensor]) -> None:
        """The model as it is left now."""
        self._samples = Samples(tensors)

    def changed(self, tensors: Mapping[str, Tensor]) -> str:
        """The first tensor that somebody else changed since, and how; empty for none."""
        sums = BitSums()
        for name, kept in self._kept.items():
            tensor = tensors.get(name)
            if tensor is None or not is_read(tensor):
                return f"{name} is gone" if tensor is None else f"{name} has become {str(tensor.dtype)[6:]}"
            if not kept.stands(tensor, sums):
                return f"{name} has other entries than were written"
        other = self._samples.differs(tensors)
        return f"{other} has other entries" if other else ""


def _reader(whole: Sequence[Tensor]) -> Callable[[Tensor, Positions], Tensor | StoredTensor]:
    """How the base's entries are kept: those of whole tensors of a CPU in a file where memory is short, all others in memory."""
    filed = [each for each in whole if each.device.type == "cpu" and each.is_contiguous()]
    size = sum(each.nbytes for each in filed)
    if not size or not belongs_in_a_file(size):
        return read_entries
    ids = set(map(id, filed))

    def read(tensor: Tensor, positions: Positions) -> Tensor | StoredTensor:
        return file.keep(tensor.reshape(-1)) if id(tensor) in ids else read_entries(tensor, positions)  # (count,)

    file = UnnamedFile(filed)
    return read


def tensors_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors by name; what peft wrapped is found under its own name too."""
    found = named_tensors(modules)
    wrapped = {name.replace(".base_layer.", "."): each for name, each in found.items() if ".base_layer." in name}
    return wrapped | found
