"""The layer of domain-adversarial training that hands values on and turns gradients round, and how strongly over a training.

Paper: *Domain-Adversarial Training of Neural Networks* (JMLR 2016, arXiv:1505.07818).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradient, None


def reversed_gradient(values: Float[Tensor, "*shape"], strength: float) -> Float[Tensor, "*shape"]:
    """The same values, whose gradient comes back times minus the strength (eqs. 16, 17).

    Args:
        values: Such as features.
        strength: lambda; 0 stops the gradient.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> (3 * reversed_gradient(x, 0.5)).sum().backward()
        >>> x.grad
        tensor([-1.5000, -1.5000])
    """
    found: Tensor = _Reversed.apply(values, strength)
    return found


def adversarial_strength(progress: float, gamma: float = 10.0) -> float:
    """lambda_p = 2 / (1 + exp(-gamma p)) - 1: 0 at first, while the domain head knows nothing, and near 1 at the end.

    Args:
        progress: p, the share of the training that is done, 0 to 1.
        gamma: How fast it rises.

    Example:
        >>> [round(adversarial_strength(p), 4) for p in (0.0, 0.1, 0.5, 1.0)]
        [0.0, 0.4621, 0.9866, 0.9999]
    """
    return 2 / (1 + math.exp(-gamma * progress)) - 1
