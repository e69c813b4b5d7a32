"""Muon: momentum whose matrix updates are made orthogonal, for linear and convolution weights.

Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024); the scale ``adam`` from Liu et al.,
Muon is Scalable for LLM Training (Moonlight, arXiv 2502.16982). ``torch.optim.Muon`` takes two-dimensional weights only; half of
a UNet is convolutions, which are flattened here to (out, in * height * width).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def orthogonalise(update: Float[Tensor, "*batch rows columns"], steps: int = 5) -> Float[Tensor, "*batch rows columns"]:
    """The nearest semi-orthogonal matrix, roughly, by a quintic Newton-Schulz iteration.

    Args:
        update: One matrix or several. In float32 polynomials of the Gram matrix are multiplied, which saves products; the digits of
            bfloat16 do not carry that, and every iterate is formed.
        steps: Iterations; singular values end near 1, not at it, and that is enough.

    Returns:
        Matrices of the same shape.

    Example:
        >>> orthogonalise(torch.diag(torch.tensor([2.0, 1.0]))).diagonal().round().tolist()
        [1.0, 1.0]
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.dtype == torch.bfloat16:
        for _ in range(steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.mT if tall else x
    gram = x @ x.mT  # (rows, columns) -> (rows, rows), the smaller side
    identity = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    product = identity
    for step in range(steps):  # every iterate is a polynomial in the first Gram matrix times the first iterate
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    With several processes (gradients already averaged) each orthogonalises its share of the matrices and all exchange the result.

    Args:
        params: Weights of two dimensions or more; those without a gradient are left alone.
        lr: Step size.
        momentum: Share of the past in the running mean of the gradients.
        weight_decay: Shrinkage a step, times ``lr``.
        steps: Newton-Schulz iterations.
        scale: ``adam``: 0.2 sqrt(max(rows, columns)), the root mean square of a typical Adam step, so that one rate fits both;
            ``spectral``: sqrt(max(1, rows / columns)), so that the rate bounds the change of a layer's output.
        bfloat16: Orthogonalise in bfloat16, as the source does: faster where the processor has it.

    Example:
        >>> weight = nn.Parameter(torch.eye(2))
        >>> optimizer = Muon([weight], lr=0.1, scale="spectral")
        >>> weight.square().sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
        scale: Literal["adam", "spectral"] = "adam",
        bfloat16: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps, "scale": scale}
        super().__init__(params, options)
        self.dtype = torch.bfloat16 if bfloat16 else None  # of the iteration; None: that of the weights

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        processes, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            parameters.sort(key=_cost, reverse=True)  # dealt out in turn: even shares
            updates = [torch.zeros_like(parameter) for parameter in parameters]
            for index, (parameter, update) in enumerate(zip(parameters, updates, strict=True)):
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                if index % processes == rank:
                    nesterov = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                    update.copy_(
                        orthogonalise(nesterov.to(self.dtype or nesterov.dtype), group["steps"]).view_as(update)
                    )
            if processes > 1:
                updates = _exchanged(updates)
            for parameter, update in zip(parameters, updates, strict=True):
                rows, columns = parameter.flatten(1).shape
                adam = group["scale"] == "adam"
                scale = 0.2 * max(rows, columns) ** 0.5 if adam else max(1, rows / columns) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def muon_and_adamw(
    model: nn.Module, lr: float, first_and_last: tuple[str, ...], *, bfloat16: bool = False
) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices of a model, AdamW for its biases, norms and its first and last layers.

    Args:
        model: What to train.
        lr: Of both, at the scale ``adam``.
        first_and_last: How the names of the parameters begin that are AdamW's whatever their shape.
        bfloat16: Muon's iteration in bfloat16.

    Returns:
        The two optimizers, to be stepped together.

    Example:
        >>> [type(each).__name__ for each in muon_and_adamw(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 1e-3, ("1.",))]
        ['Muon', 'AdamW']
    """
    inner = {name for name, p in model.named_parameters() if p.ndim >= 2 and not name.startswith(first_and_last)}
    rest = [p for name, p in model.named_parameters() if name not in inner]
    return [
        Muon(
            [p for name, p in model.named_parameters() if name in inner],
            lr,
            weight_decay=0.01,
            steps=4,
            bfloat16=bfloat16,
        ),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def _exchanged(updates: list[Tensor]) -> list[Tensor]:
    """Every process's updates: each is zero but on one of them."""
    flat = torch.cat([update.flatten() for update in updates])
    dist.all_reduce(flat)
    parts = flat.split([update.numel() for update in updates])
    return [part.view_as(update) for part, update in zip(parts, updates, strict=True)]


def _cost(parameter: Tensor) -> int:
    rows, columns = parameter.flatten(1).shape
    return min(rows, columns) ** 2 * max(rows, columns)
