"""Muon: momentum whose matrix updates are orthogonalised (Jordan et al. 2024), for linear and convolution weights.

``torch.optim.Muon`` takes two-dimensional weights only; half of a UNet is convolutions, which are flattened here to
(out, in * height * width).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def orthogonalise(update: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix of each (rows, columns) update, by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; the update has the root mean square of a typical Adam step, so one rate fits both.

    With several processes (gradients already averaged) each orthogonalises its share of the matrices and all exchange the result.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01, steps: int = 4
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        processes, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        for group in self.param_groups:
            parameters = sorted(group["params"], key=_cost, reverse=True)  # dealt out in turn: even shares
            updates = [torch.zeros_like(parameter) for parameter in parameters]
            for index, (parameter, update) in enumerate(zip(parameters, updates, strict=True)):
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                if index % processes == rank:
                    nesterov = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                    update.copy_(orthogonalise(nesterov, group["steps"]).view_as(update))
            if processes > 1:
                flat = torch.cat([update.flatten() for update in updates])
                dist.all_reduce(flat)
                updates = [
                    part.view_as(u) for part, u in zip(flat.split([u.numel() for u in updates]), updates, strict=True)
                ]
            for parameter, update in zip(parameters, updates, strict=True):
                scale = 0.2 * max(parameter.flatten(1).shape) ** 0.5  # Moonlight's match to Adam's root mean square
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def _cost(parameter: Tensor) -> int:
    rows, columns = parameter.flatten(1).shape
    return min(rows, columns) ** 2 * max(rows, columns)


def muon_and_adamw(
    model: nn.Module,
    lr: float,
    first_and_last: tuple[str, ...] = (
        "encoder.conv_in",
        "encoder.conv_out",
        "decoder.conv_in",
        "decoder.conv_out",
        "quant_conv",
    ),
) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices of a model, AdamW for its biases, norms and its first and last layers."""
    inner = {name for name, p in model.named_parameters() if p.ndim >= 2 and not name.startswith(first_and_last)}
    rest = [p for name, p in model.named_parameters() if name not in inner]
    return [
        Muon([p for name, p in model.named_parameters() if name in inner], lr=lr),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0),
    ]
