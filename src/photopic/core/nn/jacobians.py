"""Jacobians of every layer of a network with respect to some free variables of its input, all layers in one pass.

Forward mode pushes directions of the input through the network, a chunk of them at a time, and reads all layers on the way;
reverse mode pulls single outputs back. Neither loops over inputs or outputs one by one, and the network is left as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from photopic.core.errors import ModelError
from photopic.core.nn.evaluating import evaluating
from photopic.core.nn.layer_outputs import Gathered, chunk_size, gather, layer_outputs

Mode = Literal["forward", "reverse"]
Place = Callable[[Float[Tensor, "free"]], Float[Tensor, "1 ..."]]
REVERSE_COST = 2  # of pulling one output back over pushing one direction through


def widths_of(network: nn.Module, inputs: Float[Tensor, "1 ..."], layers: Sequence[str]) -> dict[str, int]:
    """Number of outputs of each layer and of the network, in the order in which they run.

    Example:
        >>> widths_of(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.ones(1, 3), ["0"])
        {'0': 2, 'output': 2}
    """
    with torch.no_grad():
        return {name: value.shape[1] for name, value in layer_outputs(network, inputs, layers).items()}


def cheaper_mode(free: int, widths: Mapping[str, int]) -> Mode:
    """Reverse where there are far fewer outputs to pull back than directions to push through, else forward.

    Example:
        >>> cheaper_mode(768, {"output": 10}), cheaper_mode(768, {"block": 4096, "output": 10})
        ('reverse', 'forward')
    """
    return "reverse" if REVERSE_COST * sum(widths.values()) < free else "forward"


def jacobian_columns(
    network: nn.Module,
    place: Place,
    at: Float[Tensor, "free"],
    layers: Sequence[str],
    widths: Mapping[str, int],
    *,
    mode: Mode,
    chunk: int | None = None,
    memory: int | None = None,
) -> Iterator[Gathered]:
    """Transposed Jacobians of layers, as ``gather`` hands them out: (free variables, some outputs of a layer).

    Args:
        network: Any module of one tensor whose operations have derivatives.
        place: The network's input, a batch of one, from the free variables.
        at: The free variables.
        layers: Names of submodules, as ``layer_outputs`` takes them.
        widths: The layers whose Jacobians are wanted, from ``widths_of``.
        mode: ``forward`` or ``reverse``; both give the same numbers up to rounding.
        chunk: Directions or outputs at a time; None chooses by the widest layer.
        memory: Bytes of Jacobians held at a time in forward mode, as ``gather`` takes it.

    Raises:
        ModelError: If an operation of the network has no such derivative.

    Example:
        >>> net, at = nn.Linear(3, 2, bias=False), torch.ones(3)
        >>> found = list(jacobian_columns(net, lambda free: free[None], at, [], {"output": 2}, mode="forward"))
        >>> torch.equal(found[-1].matrix.T, net.weight)
        True
    """
    step = chunk or chunk_size(max(widths.values()), at.element_size())
    read = _pulled(network, place, at, layers, widths) if mode == "reverse" else _pushed(network, place, at, layers)
    with evaluating(network), sdpa_kernel(SDPBackend.MATH), _derivative_errors():  # fused attention has no forward mode
        if mode == "forward":
            load_forward_mode()
            yield from gather(read, widths, len(at), chunk=step, memory=memory, itemsize=at.element_size())
            return
        count = sum(widths.values())
        rows: list[Tensor] = []
        for start in range(0, count, step):
            rows.append(read(slice(start, min(count, start + step)), "")["rows"])
            yield Gathered(min(count, start + step), count)
        for name, matrix in zip(widths, torch.cat(rows).split(list(widths.values())), strict=True):
            yield Gathered(count, count, name, matrix.T)


def jacobians(
    network: nn.Module,
    place: Place,
    at: Float[Tensor, "free"],
    layers: Sequence[str],
    *,
    mode: Mode | None = None,
    chunk: int | None = None,
    memory: int | None = None,
) -> dict[str, Float[Tensor, "outputs free"]]:
    """Jacobians of layers and of the network, whole; arguments as ``jacobian_columns``.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> {name: tuple(each.shape) for name, each in jacobians(net, lambda free: free[None], torch.ones(3), ["1"]).items()}
        {'1': (4, 3), 'output': (2, 3)}
    """
    with evaluating(network):
        widths = widths_of(network, place(at), layers)
    found: dict[str, list[Tensor]] = {}
    chosen = mode or cheaper_mode(len(at), widths)
    for event in jacobian_columns(network, place, at, layers, widths, mode=chosen, chunk=chunk, memory=memory):
        if event.matrix is not None:
            found.setdefault(event.name, []).append(event.matrix.T)
    return {name: torch.cat(parts) for name, parts in found.items()}


def load_forward_mode() -> None:
    """What torch compiles on first use warns of torch's own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def _pushed(network: nn.Module, place: Place, at: Tensor, layers: Sequence[str]) -> Callable[..., dict[str, Tensor]]:
    def read(span: slice, last: str) -> dict[str, Tensor]:
        count = span.stop - span.start
        directions = at.new_zeros(count, len(at))  # (chunk, free), rows of the identity
        directions[torch.arange(count), torch.arange(span.start, span.stop)] = 1

        def along(direction: Tensor) -> dict[str, Tensor]:
            return jvp(lambda free: layer_outputs(network, place(free), layers, last=last), (at,), (direction,))[1]

        with torch.no_grad():  # forward mode does not need the graph of reverse mode
            pushed = vmap(along, randomness="same")(directions)
        return {name: value[:, 0] for name, value in pushed.items()}  # (chunk, 1, width) -> (chunk, width)

    return read


def _pulled(
    network: nn.Module, place: Place, at: Tensor, layers: Sequence[str], widths: Mapping[str, int]
) -> Callable[..., dict[str, Tensor]]:
    def outputs(free: Tensor) -> Tensor:
        found = layer_outputs(network, place(free), layers, last=list(widths)[-1])
        return torch.cat([found[name][0] for name in widths])

    kept: list[Callable[[Tensor], tuple[Tensor]]] = []

    def read(span: slice, last: str) -> dict[str, Tensor]:
        if not kept:
            kept.append(vjp(outputs, at)[1])
        count = span.stop - span.start
        seeds = at.new_zeros(count, sum(widths.values()))
        seeds[torch.arange(count), torch.arange(span.start, span.stop)] = 1
        return {"rows": vmap(kept[0], randomness="same")(seeds)[0]}  # (chunk, free)

    return read


@contextmanager
def _derivative_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if "forward AD" in text or "functorch" in text or "vmap" in text or "batching rule" in text:
            line = next(iter(text.strip().splitlines()), type(error).__name__)
            raise ModelError(
                f"network: expected operations that can be differentiated for many directions at once, found one that "
                f"cannot ({line[:160]}); choose layers before it, or replace it"
            ) from error
        raise
