"""Run a network several times where only its later part differs: what comes before is computed once, exactly.

The modules that have finished when a given layer starts do not depend on it. In a later run they give back what they gave before;
operations between modules, such as additions, are done again. No assumption is made about the network but that each run calls
the same modules in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from photopic.core.errors import ModelError
from photopic.core.fingerprint import module_at


@dataclass(frozen=True)
class Order:
    """When each module of a network starts and ends in a run, by dotted name; modules that are called more than once are left out.

    Attributes:
        starts: Moment of the start, counted in starts and ends.
        ends: Moment of the end.
    """

    starts: Mapping[str, int]
    ends: Mapping[str, int]

    def before(self, layer: str) -> tuple[str, ...]:
        """The outermost modules that have ended when ``layer`` starts.

        Raises:
            ModelError: If the layer was not called exactly once.
        """
        if layer not in self.starts:
            raise ModelError(
                f"{layer!r}: expected a layer that a run calls once, found none; name one of {list(self.starts)[:3]}"
            )
        done = {name for name, end in self.ends.items() if end < self.starts[layer]}
        outermost = (name for name in done if not any(parent in done for parent in _parents(name)))
        return tuple(sorted(outermost, key=self.ends.__getitem__))  # in the order in which they end

    def sorted(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Layers in the order in which they start."""
        return tuple(sorted(layers, key=self.starts.__getitem__))


def order_of(network: nn.Module, run: Callable[[], Any]) -> Order:
    """Watch one run.

    Args:
        network: The network.
        run: Calls it.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> order_of(net, lambda: net(torch.ones(1, 2))).before("2")  # modules that ran before it
        ('0', '1')
    """
    starts: dict[str, list[int]] = {}
    ends: dict[str, list[int]] = {}
    moment = iter(range(1 << 62))
    with ExitStack() as stack, torch.no_grad():
        for name, module in network.named_modules():
            if name:
                pre = module.register_forward_pre_hook(
                    lambda *_, name=name: starts.setdefault(name, []).append(next(moment))
                )
                post = module.register_forward_hook(
                    lambda *_, name=name: ends.setdefault(name, []).append(next(moment))
                )
                stack.callback(pre.remove)
                stack.callback(post.remove)
        run()
    once = [name for name, moments in starts.items() if len(moments) == 1 and len(ends.get(name, ())) == 1]
    return Order({name: starts[name][0] for name in once}, {name: ends[name][0] for name in once})


@contextmanager
def recorded(network: nn.Module, names: Sequence[str], written: set[str]) -> Iterator[dict[str, Any]]:
    """Keep what modules put out in the run inside the ``with`` block, by name.

    Only what is known to be written to later in a run is copied. What turns out to be is left out this time, and so is what shares
    its memory with an input, whose change may be all that its module is for; a replay runs these modules again.

    Args:
        network: The network.
        names: Of the modules.
        written: Names whose output is written to, of earlier runs; those of this run are added.
    """
    found: dict[str, Any] = {}
    versions: dict[str, list[int]] = {}

    def keep(name: str, inputs: tuple[Any, ...], output: Any) -> None:
        if not any(_storages(each) & _storages(output) for each in inputs):
            found[name] = _copied(output) if name in written else output
            versions[name] = _versions(found[name])

    with ExitStack() as stack:
        for name in names:
            module = module_at(network, name)
            hook = module.register_forward_hook(lambda _m, inputs, output, name=name: keep(name, inputs, output))
            stack.callback(hook.remove)
        yield found
    for name in [name for name, output in found.items() if _versions(output) != versions[name]]:
        del found[name]
        written.add(name)


@contextmanager
def replayed(
    network: nn.Module, outputs: Mapping[str, Any], rows: Tensor | None = None, *, written: Container[str]
) -> Iterator[None]:
    """Inside the ``with`` block modules give back recorded outputs instead of computing them; always undone.

    Args:
        network: The network.
        outputs: Of ``recorded``.
        rows: Numbers of the samples wanted; None: all.
        written: As ``recorded`` left it: only these outputs are copied, since a run writes to no others.
    """
    with ExitStack() as stack:
        for name, output in outputs.items():
            given = _given(output, rows, name in written)
            stack.enter_context(_answering(module_at(network, name), given))
        yield


def _given(output: Any, rows: Tensor | None, is_written: bool) -> Callable[[], Any]:
    if rows is not None:
        return lambda: _rows(output, rows)  # which are a copy
    # what follows writes into it, as ``x += y`` and in-place activations do
    return (lambda: _copied(output)) if is_written else (lambda: output)


@contextmanager
def _answering(module: nn.Module, given: Callable[[], Any]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = lambda *_, **__: given()
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def _copied(output: Any) -> Any:
    return tree_map(lambda each: each.clone() if isinstance(each, Tensor) else each, output)


def _storages(value: Any) -> set[int]:
    """Where the tensors of a value lie, views of one memory in one place."""
    return {each.untyped_storage().data_ptr() for each in _tensors(value)}


def _versions(output: Any) -> list[int]:
    """How often each tensor was written to; inference tensors do not count it, and nothing writes to them under ``no_grad``."""
    return [each._version for each in _tensors(output) if not each.is_inference()]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):  # nearly always, and ten times as fast as looking for leaves
        return [value]
    return [each for each in tree_leaves(value) if isinstance(each, Tensor)]


def _rows(output: Any, rows: Tensor) -> Any:
    return tree_map(lambda each: each[rows] if isinstance(each, Tensor) and each.ndim else each, output)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
