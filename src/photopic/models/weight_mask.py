"""A trainable multiplicative mask on named weights: the effective weight is M * theta, and theta is never written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from photopic.core.gradients import StreamingMean
from photopic.core.runs import load_optimizer, optimizer_tensors

if TYPE_CHECKING:
    from photopic.models.concept_loss import ConceptLoss, Losses

MaskOptimizer = Literal["adam", "sgd", "paper"]
DEFAULT_LR = {"adam": 0.02, "sgd": 100.0, "paper": 2e-5}


def masked(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """M * theta by name, multiplied in float32, at the weights' precision; a mask of ones changes no bit.

    Example:
        >>> masked({"w": torch.tensor([2.0])}, {"w": torch.tensor([0.5])})["w"]
        tensor([1.])
    """
    return {name: (masks[name] * weight.float()).to(weight.dtype) for name, weight in weights.items()}


class WeightMask:
    """Masks of ones, one a weight, their optimizer, and the running mean of theta' * dL/dtheta'.

    Args:
        weights: theta by name.
        optimizer: ``adam`` and ``sgd`` descend on M and clip it to [0, 1]; ``paper`` is the published loop
            theta' <- theta' - lr * theta' * theta' * g.
        lr: Step size; None takes the optimizer's in ``DEFAULT_LR``.

    Attributes:
        masks: M by name, float32.
        saliency: Mean over the steps of theta' * dL/dtheta' = M * dL/dM; its scale is the same after any number.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, optimizer: MaskOptimizer = "adam", lr: float | None = None):
        self.weights, self.rule = weights, optimizer
        self.masks = {n: torch.ones_like(w, dtype=torch.float32, requires_grad=True) for n, w in weights.items()}
        self.lr = DEFAULT_LR[optimizer] if lr is None else lr
        self.saliency = StreamingMean()
        self._adam = torch.optim.Adam(self.masks.values(), lr=self.lr) if optimizer == "adam" else None

    def step(self, loss: ConceptLoss, step: int) -> Losses:
        """One step on the mask with the loss of step number ``step``; dL/dM = theta * dL/d(M * theta)."""
        losses = loss.step(step, masked(self.weights, self.masks))
        gradients = torch.autograd.grad(losses.total, list(self.masks.values()))
        with torch.no_grad():
            pairs = zip(self.masks.items(), gradients, strict=True)
            self.saliency.update({name: mask * gradient for (name, mask), gradient in pairs})
            for mask, gradient in zip(self.masks.values(), gradients, strict=True):
                mask.grad = gradient
                if self.rule == "paper":
                    mask -= self.lr * mask * mask * gradient  # theta' - rho theta' theta' g, divided by theta
                elif self.rule == "sgd":
                    mask -= self.lr * gradient
            if self._adam:
                self._adam.step()
            if self.rule != "paper":
                for mask in self.masks.values():
                    mask.clamp_(0, 1)
        return losses

    def share_below(self, threshold: float) -> float:
        """Share of all mask entries below a threshold."""
        below = sum(int((mask.detach() < threshold).sum()) for mask in self.masks.values())
        return below / sum(mask.numel() for mask in self.masks.values())

    def below(self, threshold: float) -> dict[str, Tensor]:
        """Sorted flat positions whose mask is below a threshold, by name; names without any are left out."""
        return self._split((self._flat(self.masks) < threshold).nonzero().flatten())

    def lowest(self, density: float) -> dict[str, Tensor]:
        """The share ``density`` of all positions with the lowest mask; ties fall to the higher saliency."""
        order = self._flat(self.saliency.values).argsort(descending=True, stable=True)
        order = order[self._flat(self.masks)[order].argsort(stable=True)]
        return self._split(order[: round(density * len(order))])

    def most_salient(self, density: float) -> dict[str, Tensor]:
        """The share ``density`` of all positions with the highest saliency: the published criterion."""
        order = self._flat(self.saliency.values).argsort(descending=True, stable=True)
        return self._split(order[: round(density * len(order))])

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs; ``restore`` is the inverse."""
        optimizer = optimizer_tensors(self._adam) if self._adam else {}
        return {f"mask.{name}": mask for name, mask in self.masks.items()} | self.saliency.tensors() | optimizer

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Go back to the state ``tensors`` gave after ``step`` steps."""
        with torch.no_grad():
            for name, mask in self.masks.items():
                mask.copy_(tensors[f"mask.{name}"])
        self.saliency.restore(tensors, step, next(iter(self.masks.values())).device)
        if self._adam:
            load_optimizer(self._adam, tensors)

    def _flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """All weights' entries laid end to end, in the order of ``weights`` whatever the order of ``tensors``."""
        return torch.cat([tensors[name].detach().flatten().cpu() for name in self.weights])

    def _split(self, positions: Tensor) -> dict[str, Tensor]:
        """Positions in all weights laid end to end -> sorted positions by name."""
        positions, start, found = positions.sort().values, 0, {}
        for name, weight in self.weights.items():
            inside = (positions >= start) & (positions < start + weight.numel())
            if inside.any():
                found[name] = positions[inside] - start
            start += weight.numel()
        return found
