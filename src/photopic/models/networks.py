"""What every handle asks of the network it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from photopic.core.errors import ModelError


def check_finite(network: nn.Module, name: str) -> None:
    """Refuse a network with a weight that is no number.

    Args:
        network: Any.
        name: What messages call the model.

    Raises:
        ModelError: Names the tensor.
    """
    for key, value in network.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(f"{name}: {key} holds NaN or infinity; the file is damaged or training diverged")


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A block in which the network is in evaluation mode, so that looking at a picture changes no statistics."""
    training = [part for part in network.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def fastest() -> str:
    """The device a model goes to where none is named."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def put_on(network: nn.Module, device: str | torch.device) -> None:
    """Move a network to a device.

    Raises:
        ModelError: If the device does not exist.
    """
    check_device(device)
    network.to(device)


def check_device(device: str | torch.device) -> None:
    """Refuse a device that does not exist, before a model is read for it.

    Raises:
        ModelError: Says what torch says of it.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that does not exist
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"device {device}: cannot be used ({line}); leave it out, or use cpu") from error
