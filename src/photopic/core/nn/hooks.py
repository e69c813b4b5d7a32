"""Tap and rewrite what flows through any ``nn.Module``, by name pattern; always undone, also when the body raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from photopic.core.errors import ModelError


def match(module: nn.Module, *patterns: str) -> dict[str, nn.Module]:
    """Submodules whose dotted name matches any shell-style pattern; the module itself is called ``""``.

    Args:
        module: Where to look.
        patterns: Such as ``"*.attn2.to_k"``; ``*`` also matches dots.

    Raises:
        ModelError: If a pattern matches nothing.

    Example:
        >>> list(match(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "0"))
        ['0']
    """
    names = dict(module.named_modules())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ModelError(
                f"{pattern!r} matches no submodule of {type(module).__name__}; names look like {list(names)[-1]!r}"
            )
    return {name: part for name, part in names.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


@contextmanager
def tap(module: nn.Module, *patterns: str, inputs: bool = False, detach: bool = True) -> Iterator[dict[str, list[Any]]]:
    """Record what matching submodules put out, or take in, call by call.

    Args:
        module: Whose submodules to tap.
        patterns: Name patterns as in ``match``.
        inputs: Record the first argument instead of the output.
        detach: Record tensors without their gradient history.

    Yields:
        For every matching name the values in the order of the calls.

    Raises:
        ModelError: If a pattern matches nothing.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> with tap(net, "0") as seen:
        ...     _ = net(torch.ones(1, 3))
        >>> seen["0"][0].shape
        torch.Size([1, 2])
    """
    seen: dict[str, list[Any]] = {}

    def record(name: str, value: Any) -> None:
        seen[name].append(_detached(value) if detach else value)

    parts = match(module, *patterns)
    seen.update({name: [] for name in parts})
    with _hooked(parts, record, inputs):
        yield seen


@contextmanager
def rewrite(
    module: nn.Module, *patterns: str, function: Callable[[str, Any], Any], inputs: bool = False
) -> Iterator[tuple[str, ...]]:
    """Replace what matching submodules put out, or take in.

    Args:
        module: Whose submodules to rewrite.
        patterns: Name patterns as in ``match``.
        function: Called with (name, value); returns the new value, or None to leave it.
        inputs: Rewrite the first argument instead of the output.

    Yields:
        The matching names.

    Raises:
        ModelError: If a pattern matches nothing.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity())
        >>> with rewrite(net, "0", function=lambda name, value: value * 2):
        ...     net(torch.ones(1))
        tensor([2.])
    """
    parts = match(module, *patterns)
    with _hooked(parts, function, inputs):
        yield tuple(parts)


@contextmanager
def _hooked(parts: dict[str, nn.Module], function: Callable[[str, Any], Any], inputs: bool) -> Iterator[None]:
    with ExitStack() as stack:
        for name, part in parts.items():
            if inputs:
                handle = part.register_forward_pre_hook(_input_hook(name, function), with_kwargs=True)
            else:
                handle = part.register_forward_hook(_output_hook(name, function))
            stack.callback(handle.remove)
        yield


def _output_hook(name: str, function: Callable[[str, Any], Any]) -> Callable[..., Any]:
    return lambda module, args, output: function(name, output)


def _input_hook(name: str, function: Callable[[str, Any], Any]) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        key = None if args else next(iter(kwargs))
        new = function(name, args[0] if key is None else kwargs[key])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: new})

    return hook


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()  # a later in-place operation must not reach into the record
    if isinstance(value, list | tuple):
        return type(value)(_detached(item) for item in value)
    return value
