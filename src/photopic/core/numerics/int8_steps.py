"""Values at 8 bits: whole multiples, -127 to 127, of one even step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.editfile.value_codes import STEPS, step_for


def step_of(values: Float[Tensor, " count"]) -> Float[Tensor, ""]:
    """The step of `to_steps`: the largest magnitude over 127, rounded up to 8 significant bits; 0 if all values are 0.

    With so short a step every multiple up to 127 is exact in float32, and the step can be read off the rounded values.

    Example:
        >>> step_of(torch.tensor([-127.0, 3.0]))
        tensor(1.)
    """
    if not values.numel() or not bool(values.any()):
        return torch.zeros(())
    return torch.tensor(step_for(float(values.abs().max())))


def to_steps(values: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
    """The nearest whole multiple of one step; the largest value becomes exactly 127 of them.

    Args:
        values: Finite numbers.

    Returns:
        float32; applying it again changes nothing.

    Example:
        >>> to_steps(torch.tensor([127.0, 3.4, -2.6]))
        tensor([127.,   3.,  -3.])
    """
    values = values.float()
    step = step_of(values)
    if step == 0:
        return torch.zeros_like(values)
    codes = torch.round(values.double() / step.double()).clamp(-STEPS, STEPS)
    codes = torch.where(values.abs() == values.abs().max(), STEPS * values.double().sign(), codes)
    return (codes * step.double()).float()
