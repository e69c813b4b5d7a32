"""Numbers that are not finite end in an error that says where they came up, and from which weights if those are at fault."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from photopic.core.errors import ModelError


def check_finite(found: Tensor, what: str, network: nn.Module | None = None) -> None:
    """Refuse nan and inf.

    Args:
        found: Any numbers, such as a prediction.
        what: What they are, for the message, such as ``sampling: the prediction of step 3 of 30``.
        network: What made them; its weights are looked through for the cause.

    Raises:
        ModelError: Names what, how many, and the cause where it is known.

    Example:
        >>> check_finite(torch.zeros(2), "latents")
    """
    lost = ~found.detach().isfinite()
    if lost.any():
        raise ModelError(
            f"{what}: expected finite numbers, found nan or inf in {int(lost.sum())} of {lost.numel()}; {_cause(found, network)}"
        )


def _cause(found: Tensor, network: nn.Module | None) -> str:
    """What to do: load weights again that are damaged, take a wider format, or less extreme settings."""
    for name, weight in () if network is None else network.named_parameters():
        if not weight.detach().isfinite().all():
            return (
                f"the weight {name} of {type(network).__name__} holds them: load the model again, or take its edit away"
            )
    if found.dtype in (torch.float16, torch.bfloat16):
        return f"{str(found.dtype).removeprefix('torch.')} is too narrow here: load the model with dtype=torch.float32"
    return "lower the guidance, or check the model's weights and its edits"
