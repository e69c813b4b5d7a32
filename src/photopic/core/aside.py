"""Tensors set aside in a file without a name instead of in memory: read back bit by bit, gone with the process.

The system keeps of it what it has memory for, and writes the rest to the disk of the folder that ``TMPDIR`` names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

ALIGNED = 64  # bytes: every number format may be read from there
MEMINFO = Path("/proc/meminfo")
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
            data, done = block.view(torch.uint8).numpy().data, 0  # (bytes,)
            while done < len(data):  # the place of the file is not moved: others may read it too
                count = os.preadv(
                    self.file.opened.fileno(), [data[done:]], self.start + first * self.dtype.itemsize + done
                )
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
        found = torch.from_numpy(np.memmap(self.file.opened, np.uint8, "c", self.start, (size,)))
        return found.view(self.dtype).view(self.shape)

    def __reduce__(self) -> tuple[Callable[[Tensor], Tensor], tuple[Tensor]]:
        return torch.clone, (self.read(),)


class UnnamedFile:
    """A file without a name that tensors are set aside in.

    Args:
        tensors: That will be kept; room for them is taken at once, which makes writing ten times as fast as letting the file grow.

    Raises:
        OSError: If there is no room, or from `keep` where a system takes none beforehand.

    Example:
        >>> numbers = torch.arange(3)
        >>> UnnamedFile([numbers]).keep(numbers).read()
        tensor([0, 1, 2])
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.opened: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as a tensor in it
        weakref.finalize(self, self.opened.close)
        self._stop = 0
        size = sum(map(_room_of, tensors))
        if size and hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(self.opened.fileno(), 0, size)

    def keep(self, tensor: Tensor) -> StoredTensor:
        """Write a tensor of the CPU that lies in one piece."""
        start, self._stop = self._stop, self._stop + _room_of(tensor)
        self.opened.seek(start)
        self.opened.write(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)  # (bytes,)
        self.opened.flush()
        return StoredTensor(self, start, tensor.shape, tensor.dtype)


def _room_of(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNED) * ALIGNED


def belongs_in_a_file(size: int) -> bool:
    """Whether so many bytes are better set aside in a file than in memory, which is faster.

    So it is where less than four times as much memory is available, as Linux tells it, and twice as much of the disk.
    """
    if not MEMINFO.exists():
        return False
    line = next(each for each in MEMINFO.read_text().splitlines() if each.startswith("MemAvailable:"))
    if 1024 * int(line.split()[1]) >= 4 * size:  # in kB
        return False
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free >= 2 * size
    except FileNotFoundError:  # no folder for temporary files at all
        return False
