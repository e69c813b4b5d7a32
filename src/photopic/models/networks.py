"""What every handle asks of the network it holds."""

from __future__ import annotations

import os

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


def fastest() -> str:
    """The device a model goes to where none is named: of several processes that were launched together each has its own."""
    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK")
    return "cuda" if rank is None else f"cuda:{int(rank) % torch.cuda.device_count()}"


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
