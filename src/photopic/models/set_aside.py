"""Networks set aside: their weights wait in a file, or in main memory beside a GPU, while something else needs the memory.

Nothing about them changes for who calls them: on a CPU their tensors become views of a mapped file, of which the system reads
what is used and gives back what is not. The file has no name, so it is gone with the process; it lies where ``TMPDIR`` says.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

ALIGNED = 64  # bytes: every number format may be read from there


@contextmanager
def set_aside(modules: Sequence[nn.Module]) -> Iterator[None]:
    """A block in which networks take no memory; afterwards they are where they were, with the bits they had.

    Args:
        modules: The networks; they may still be called, a CPU's slowly.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = layer.weight.clone()
        >>> with set_aside([layer]):
        ...     same = torch.equal(layer.weight, before)
        >>> same and torch.equal(layer.weight, before)
        True
    """
    tensors = [each for module in modules for each in chain(module.parameters(), module.buffers())]
    devices = [each.device for each in tensors]
    on_cpu = [each for each in tensors if each.device.type == "cpu" and each.is_contiguous()]
    for tensor, kept in zip(on_cpu, _in_a_file(on_cpu), strict=True):
        tensor.data = kept
    for tensor in tensors:
        if tensor.device.type != "cpu":
            tensor.data = tensor.data.cpu()
    _give_back()
    try:
        yield
    finally:
        for tensor in on_cpu:
            tensor.data = tensor.data.clone()  # out of the file
        for tensor, device in zip(tensors, devices, strict=True):
            tensor.data = tensor.data.to(device)
        _give_back()


def _in_a_file(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors as views of a mapped file, each of a mapping of its own: it goes when its tensor has come back."""
    starts, stop = [], 0
    with tempfile.TemporaryFile() as file:
        for tensor in tensors:
            starts.append(-(-stop // ALIGNED) * ALIGNED)
            file.seek(starts[-1])
            file.write(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)  # (bytes,)
            stop = starts[-1] + tensor.nbytes
        file.flush()
        return [
            _mapped(file, start, tensor) if tensor.numel() else tensor.data  # nothing cannot be mapped
            for start, tensor in zip(starts, tensors, strict=True)
        ]


def _mapped(file: IO[bytes], start: int, tensor: Tensor) -> Tensor:
    """The bytes from a place on as a tensor like another; written to, a page is the process's own."""
    found = torch.from_numpy(np.memmap(file, np.uint8, "c", start, (tensor.nbytes,)))
    return found.view(tensor.dtype).view(tensor.shape)


def _give_back() -> None:
    """Freed memory goes to the system at once where the allocator can be asked: glibc keeps what lies between its blocks."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
