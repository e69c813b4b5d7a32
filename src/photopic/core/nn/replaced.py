"""Other tensors in the place of a network's parameters for the length of a block, backward passes included.

``torch.func.functional_call`` gives the parameters back when the forward pass returns, which is too early for a pass that is
computed again on the way back (activation checkpointing).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def replaced(modules: Mapping[str, nn.Module], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """A block in which some parameters are others; the parameters themselves are never written.

    Args:
        modules: By component, such as ``unet``.
        weights: By ``<component>.<parameter name>``; gradients flow to them.

    Raises:
        KeyError: If there is no such parameter.

    Example:
        >>> import torch
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> with replaced({"layer": layer}, {"layer.weight": torch.tensor([[3.0]])}):
        ...     layer(torch.ones(1, 1)).item()
        3.0
    """
    places = []
    for name in weights:
        component, _, path = name.partition(".")
        owner, _, leaf = path.rpartition(".")
        places.append((modules[component].get_submodule(owner)._parameters, leaf, name))
    kept = [(parameters, leaf, parameters[leaf]) for parameters, leaf, _ in places]
    try:
        for parameters, leaf, name in places:
            parameters[leaf] = weights[name]  # type: ignore[assignment]  # a tensor with a graph behind it is no Parameter
        yield
    finally:
        for parameters, leaf, parameter in kept:
            parameters[leaf] = parameter
