"""A network in evaluation mode for a while, so that looking at a picture changes no statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def parts_of(network: nn.Module) -> list[nn.Module]:
    """The network and every module in it, without their names; one that stands in two places comes twice.

    Example:
        >>> len(parts_of(nn.Sequential(nn.Linear(1, 1))))
        2
    """
    found = [network]
    for part in found:  # grows meanwhile; torch's own generator passes every module through all levels above it
        found += [each for each in part._modules.values() if each is not None]
    return found


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode within the block; every submodule's mode is put back after it.

    Example:
        >>> network = nn.Dropout()
        >>> with evaluating(network):
        ...     network.training
        False
    """
    training = [part for part in parts_of(network) if part.training]
    if training:
        network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
