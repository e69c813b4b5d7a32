"""What every chosen layer of a network puts out for many probes, gathered layer by layer within a memory budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.hooks import rewrite

OUTPUT = "output"  # what the network itself puts out, beside the layers
HEAP_LIMIT = 32 << 20  # bytes; glibc asks the system anew for every larger tensor, which costs more than computing it
WIDER_INSIDE = 4  # the widest tensor inside a layer over the layer's output, as in a transformer's MLP

MEMORY_SHARE = 3  # of the machine's memory one in three parts may hold gathered outputs

Read = Callable[[slice, str], Mapping[str, Float[Tensor, "probes width"]]]


class _Reached(Exception):
    """The last layer that is wanted has run: the rest of the network need not."""


def layer_outputs(
    network: nn.Module, inputs: Float[Tensor, "n ..."], layers: Sequence[str], *, last: str = ""
) -> dict[str, Float[Tensor, "n width"]]:
    """Outputs of layers and of the network, flattened, in the order in which they ran.

    Args:
        network: Any module of one tensor.
        inputs: What it takes.
        layers: Dotted names of submodules. One that runs more than once is kept as ``name``, ``name#2``, ...
        last: Stop the network after this one, if given.

    Returns:
        One matrix a layer, and ``output`` unless stopped before. Of outputs that hold several tensors the first one, or
        ``logits``.

    Raises:
        ModelError: If a layer puts out no tensor of numbers, or one that is no batch of n.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> {name: tuple(value.shape) for name, value in layer_outputs(net, torch.ones(5, 3), ["0"]).items()}
        {'0': (5, 2), 'output': (5, 2)}
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        calls = sum(key.split("#")[0] == name for key in found)
        key = name if calls == 0 else f"{name}#{calls + 1}"
        found[key] = _flat(value, len(inputs), name).clone()  # a later in-place operation must not reach into it
        if key == last:
            raise _Reached

    with rewrite(network, *layers, function=keep):
        try:
            output = network(inputs)
        except _Reached:
            return found
    found[OUTPUT] = _flat(output, len(inputs), OUTPUT)
    return found


def _flat(value: Any, count: int, name: str) -> Tensor:
    value = getattr(value, "logits", value)
    while isinstance(value, tuple | list | Mapping) and value:
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ModelError(
            f"layer {name}: expected a tensor of numbers, found {type(value).__name__}; choose another layer"
        )
    if value.numel() == 0 or value.numel() % count:
        raise ModelError(
            f"layer {name}: expected one output for each of {count} inputs, found shape {tuple(value.shape)}; "
            "choose another layer"
        )
    return value.reshape(count, -1)


@dataclass(frozen=True)
class Gathered:
    """One event of ``gather``.

    Attributes:
        done: Probes run so far, over all passes.
        total: Probes to run in all.
        name: A layer whose columns are complete, or empty.
        matrix: All probes of it, for a run of its columns.
    """

    done: int
    total: int
    name: str = ""
    matrix: Float[Tensor, "probes columns"] | None = None


def gather(
    read: Read, widths: Mapping[str, int], count: int, *, chunk: int, memory: int | None = None, itemsize: int = 4
) -> Iterator[Gathered]:
    """Run every probe and hand out matrices of all probes by some columns of one layer.

    One pass through the network serves all layers as long as their matrices fit into ``memory``; wider ones are cut by
    columns and take further passes, so that memory does not grow with the network.

    Args:
        read: Outputs by layer of the probes of a slice; may stop after the layer named second.
        widths: Outputs of each layer, in the order in which they run.
        count: Number of probes.
        chunk: Probes a call of ``read``.
        memory: Bytes for the matrices; None takes a third of the machine's memory.
        itemsize: Bytes of one number.

    Yields:
        After every chunk how far it is; after a pass its matrices, of which a layer's come in the order of its columns.

    Example:
        >>> import torch
        >>> read = lambda probes, last: {"a": torch.arange(6.0).reshape(3, 2)[probes]}
        >>> [event.matrix.tolist() for event in gather(read, {"a": 2}, 3, chunk=2) if event.name]
        [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]]
    """
    room = memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY_SHARE
    passes = _plan(widths, max(1, room // (count * itemsize)))
    done, total = 0, count * len(passes)
    for pieces in passes:
        buffers: list[Tensor] = []
        for start in range(0, count, chunk):
            span = slice(start, min(count, start + chunk))
            values = read(span, pieces[-1][0])
            for number, (name, low, high) in enumerate(pieces):
                part = values[name][:, low:high]
                if start == 0:
                    buffers.append(part.new_empty(count, high - low))
                buffers[number][span] = part
            done += span.stop - span.start
            yield Gathered(done, total)
        for name, _, _ in pieces:
            yield Gathered(done, total, name, buffers.pop(0))


def _plan(widths: Mapping[str, int], room: int) -> list[list[tuple[str, int, int]]]:
    """Passes of (layer, first column, column after the last), of at most ``room`` columns each."""
    passes: list[list[tuple[str, int, int]]] = [[]]
    left = room
    for name, width in widths.items():
        low = 0
        while low < width:
            if left == 0:
                passes.append([])
                left = room
            high = min(width, low + left)
            passes[-1].append((name, low, high))
            left -= high - low
            low = high
    return passes


def chunk_size(widest: int, itemsize: int, limit: int = 256) -> int:
    """Probes at a time, so that the largest tensor on the way is one that the allocator keeps.

    Args:
        widest: Outputs of the widest layer.
        itemsize: Bytes of one number.
        limit: The most.

    Example:
        >>> chunk_size(197 * 768, 4)
        13
    """
    return max(4, min(limit, HEAP_LIMIT // (WIDER_INSIDE * widest * itemsize)))
