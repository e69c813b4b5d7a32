"""Tensors set aside in a file without a name instead of in memory: read back bit by bit, gone with the process.

The system keeps of it what it has memory for, and writes the rest to the disk of the folder that ``TMPDIR`` names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

ALIGNED = 64  # bytes: every number format may be read from there
_BLOCK = 1 << 20  # entries that are read at a time


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor in such a file; a copy of it, or a pickle, is the tensor itself.

    Attributes:
        file: That holds it, with others.
        start: Its first byte there.
        shape: Of the tensor.
        dtype: Of the tensor.
    """

    file: UnnamedFile
    start: int
    shape: torch.Size
    dtype: torch.dtype

    def numel(self) -> int:
        """How many entries it has."""
        return self.shape.numel()

    def blocks(self) -> Iterator[tuple[int, Shaped[Tensor, " count"]]]:
        """Its entries in order, some at a time, each with the number of its first; they are written over by the next."""
        buffer = torch.empty(min(_BLOCK, self.numel()), dtype=self.dtype)
        for first in range(0, self.numel(), _BLOCK):
            block = buffer[: self.numel() - first]
            data, done = memoryview(block.view(torch.uint8).numpy()), 0  # (bytes,)
            while done < len(data):  # the place of the file is not moved: others may read it too
                count = os.preadv(self.file.opened.fileno(), [data[done:]], self.start + first * self.dtype.itemsize + done)
                assert count, "a file without a name is nobody else's to shorten"
                done += count
            yield first, block

    def read(self) -> Tensor:
        """The tensor, in memory."""
        flat = torch.empty(self.numel(), dtype=self.dtype)
        for first, block in self.blocks():
            flat[first : first + len(block)] = block
        return flat.view(self.shape)

    def mapped(self) -> Tensor:
        """The tensor as a view of the file, in a mapping of its own, which goes with it; a page that is written to is copied."""
        if not self.numel():
            return torch.empty(self.shape, dtype=self.dtype)  # nothing cannot be mapped
        size = self.numel() * self.dtype.itemsize
        found = torch.from_numpy(np.memmap(self.file.opened, np.uint8, "c", self.start, (size,)))  # type: ignore[call-overload]
        return found.view(self.dtype).view(self.shape)

    def __reduce__(self) -> tuple[Callable[[Tensor], Tensor], tuple[Tensor]]:
        return torch.clone, (self.read(),)


class UnnamedFile:
    """A file without a name that tensors are set aside in.

    Raises:
        OSError: If it cannot be made, or from `keep` if it has no room.

    Example:
        >>> kept = UnnamedFile().keep(torch.arange(3))
        >>> kept.read()
        tensor([0, 1, 2])
    """

    def __init__(self) -> None:
        self.opened: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as a tensor in it
        weakref.finalize(self, self.opened.close)
        self._stop = 0

    def keep(self, tensor: Tensor) -> StoredTensor:
        """Write a tensor of the CPU that lies in one piece."""
        start = -(-self._stop // ALIGNED) * ALIGNED
        self.opened.seek(start)
        self.opened.write(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)  # (bytes,)
        self.opened.flush()
        self._stop = start + tensor.nbytes
        return StoredTensor(self, start, tensor.shape, tensor.dtype)


def is_room(size: int) -> bool:
    """Whether files without a name may take so many bytes: as many must be free a second time."""
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free >= 2 * size
    except FileNotFoundError:  # no folder for temporary files at all
        return False
