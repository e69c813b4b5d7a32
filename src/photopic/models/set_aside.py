"""Networks set aside: their weights wait in a file, or in main memory beside a GPU, while something else needs the memory.

Nothing about them changes for who calls them: on a CPU their tensors become views of a mapped file, of which the system reads
what is used and gives back what is not. The file has no name, so it is gone with the process; it lies where ``TMPDIR`` says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from photopic.core.aside import UnnamedFile

DECODED = 64 * 64  # entries of a channel of latents from which decoding takes a gigabyte


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
    file = UnnamedFile(on_cpu)
    for tensor, kept in [(each, file.keep(each)) for each in on_cpu]:
        tensor.data = kept.mapped()
    for tensor in tensors:
        if tensor.device.type != "cpu":
            tensor.data = tensor.data.cpu()
    give_back()
    try:
        yield
    finally:
        give_back()  # what the block used, before its place is taken again
        for tensor in on_cpu:
            tensor.data = tensor.data.clone()  # out of the file
        for tensor, device in zip(tensors, devices, strict=True):
            tensor.data = tensor.data.to(device)
        give_back()


def room_for_decoding(latents: Tensor) -> None:
    """Before large pictures are decoded, what the denoising freed goes back to the system: it would come on top of the decoder's.

    Args:
        latents: (batch, channels, height, width); below 64 x 64, and on a GPU, nothing is done.

    Example:
        >>> room_for_decoding(torch.zeros(1, 4, 64, 64))
    """
    if latents.device.type == "cpu" and latents.shape[-2] * latents.shape[-1] >= DECODED:
        give_back()


def give_back() -> None:
    """Freed memory goes to the system at once where the allocator can be asked: glibc keeps what lies between its blocks.

    Example:
        >>> give_back()
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
