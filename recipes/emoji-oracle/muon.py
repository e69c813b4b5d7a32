"""Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before each step."""

from __future__ import annotations

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """For kernels and matrices; everything else stays with AdamW.

    Args:
        params: Tensors of two dimensions or more; kernels are flattened to (out, in).
        lr: Length of a step relative to the weight's own norm scale.
        momentum: Nesterov momentum.
        weight_decay: Decoupled decay.
    """

    def __init__(self, params, *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(buffer, group["momentum"])
                direction = orthogonal(update.flatten(1)).view_as(weight)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                rows, columns = weight.flatten(1).shape
                weight.add_(direction, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Singular values to about 1 by a quintic Newton-Schulz iteration."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x
