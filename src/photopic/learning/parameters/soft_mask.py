"""A trainable multiplicative mask on named weights or their rows: the effective weight is M * theta, and theta is never written.

Masks are soft while they are trained, or, if the share of the weights to shut is given, binary for the most part: the weights
of the lowest masks are then really shut and the gradient passes straight through to M (arXiv:1308.3432).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from photopic.core.nn.gradients import StreamingMean
from photopic.core.runs import load_optimizer, optimizer_tensors

if TYPE_CHECKING:
    from photopic.learning.losses.denoising import ConceptLoss, Losses

MaskOptimizer = Literal["adam", "sgd", "paper"]
Structure = Literal["entries", "rows"]
DEFAULT_LR = {"adam": 0.02, "sgd": 0.03, "paper": 2e-5}
SOFT_SHARE = 0.3  # of the steps come before masks are binary: which are lowest is not known at first


def masked(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """M * theta by name, multiplied in float32, at the weights' precision; a mask of ones changes no bit.

    Example:
        >>> masked({"w": torch.tensor([2.0])}, {"w": torch.tensor([0.5])})["w"]
        tensor([1.])
    """
    # float32 first: a mask of 1 - 1e-4 times a half-precision weight would round to the weight itself
    return {name: (masks[name] * weight.float()).to(weight.dtype) for name, weight in weights.items()}


def first_lowest(values: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " count"]:
    """The places of the ``count`` lowest values, 1 or more of them, in no order; of equal ones the first.

    Example:
        >>> sorted(first_lowest(np.array([2.0, 1.0, 2.0, 0.0]), 3).tolist())
        [0, 1, 3]
    """
    limit = np.partition(values, count - 1)[count - 1]
    sure, tied = np.flatnonzero(values < limit), np.flatnonzero(values == limit)
    return np.concatenate([sure, tied[: count - len(sure)]])


class WeightMask:
    """Masks of ones, one a weight, their optimizer, and the running mean of theta' * dL/dtheta'.

    Args:
        weights: theta by name.
        optimizer: ``sgd`` and ``adam`` descend on M and clip it to [0, 1]; ``paper`` is the published loop
            theta' <- theta' - lr * theta' * theta' * g.
        lr: Step size; of ``sgd`` in units of the root mean square of all gradients so far, so that it suits any loss. None takes
            the optimizer's in ``DEFAULT_LR``.
        density: Share of the weights to shut while searching. None trains soft masks at a constant step size to the end; otherwise
            the step size falls along half a cosine and all but the first ``SOFT_SHARE`` of the steps shut the lowest masks.
        steps: How many there will be; needed with a density.
        betas: Of ``adam``: how slowly its means of gradients and of their squares forget.
        rows: Of weights that do more than what is searched, the rows that are; all others keep a mask of 1.
        structure: Whether each entry of a weight has a mask of its own, or each row, which is shut or stays as a whole.

    Attributes:
        masks: M by name, float32: (out, in) like its weight, or (out, 1).
        saliency: Mean over the steps of theta' * dL/dtheta' = M * dL/dM; its scale is the same after any number.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        optimizer: MaskOptimizer = "adam",
        lr: float | None = None,
        density: float | None = None,
        steps: int = 1,
        betas: tuple[float, float] = (0.9, 0.999),
        rows: Mapping[str, range] | None = None,
        structure: Structure = "entries",
    ):
        # how many entries of a weight of (out, in) share a mask, one after the other
        self._shared = {name: weight[0].numel() if structure == "rows" else 1 for name, weight in weights.items()}
        # where in each flattened mask the search is: (first, last + 1)
        self._spans = {name: (0, weight.numel() // self._shared[name]) for name, weight in weights.items()}
        for name, part in (rows or {}).items():
            masks = weights[name][0].numel() // self._shared[name]  # of a row
            self._spans[name] = (part.start * masks, part.stop * masks)
        self.weights, self.rule, self.density, self.steps = weights, optimizer, density, steps
        # M: (out, in) like its matrix or (out, 1), and float32 whatever the model's precision
        alike = {name: weight if structure == "entries" else weight[:, :1] for name, weight in weights.items()}
        self.masks = {n: torch.ones_like(w, dtype=torch.float32, requires_grad=True) for n, w in alike.items()}
        self.lr = DEFAULT_LR[optimizer] if lr is None else lr
        self.saliency, self._square = StreamingMean(), StreamingMean()
        self.done = 0  # steps
        self._adam = torch.optim.Adam(self.masks.values(), lr=self.lr, betas=betas) if optimizer == "adam" else None

    def step(self, loss: ConceptLoss, step: int) -> Losses:
        """One step on the mask with the loss of step number ``step``; dL/dM = theta * dL/d(M * theta)."""
        tried = self._tried(step)
        # theta' = M * theta, so dL/dM = theta * dL/dtheta' by the chain rule: autograd gives it at `tried`
        losses, found = loss.gradients(step, masked(self.weights, tried), list(tried.values()))
        gradients = dict(zip(tried, found, strict=True))
        with torch.no_grad():
            # M * dL/dM = theta' * dL/dtheta': the first-order drop of the loss if theta' went to zero
            self.saliency.update({name: tried[name] * gradient for name, gradient in gradients.items()})
            self._descend(gradients, step)
        self.done = step + 1
        return losses

    def _is_binary(self, step: int) -> bool:
        return self.density is not None and self.rule != "paper" and step >= max(1, SOFT_SHARE * self.steps)

    def _tried(self, step: int) -> dict[str, Tensor]:
        """The masks of a step: M itself, or 0 for the lowest and 1 for all others."""
        if self.density is None or not self._is_binary(step):
            return self.masks
        # straight through: leaves of their own, so that dL/dM is taken at the 0 or 1 that was tried
        tried = {name: torch.ones_like(mask) for name, mask in self.masks.items()}
        for name, places in self._split(self._places_of_lowest(self.density)).items():
            tried[name].view(-1)[places.to(tried[name].device)] = 0  # (chosen,) flat positions
        return {name: mask.requires_grad_() for name, mask in tried.items()}

    def _descend(self, gradients: Mapping[str, Tensor], step: int) -> None:
        is_falling = self.density is not None and self.rule != "paper"
        lr = self.lr if not is_falling else self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        if self.rule == "sgd":
            # root mean square of all gradients so far, over steps and entries: the unit of the step size
            squares = torch.stack([gradient.double().square().sum() for gradient in gradients.values()]).sum()
            self._square.update({"": squares / sum(gradient.numel() for gradient in gradients.values())})
            lr /= max(float(self._square.values[""]) ** 0.5, torch.finfo(torch.float32).tiny)
        for name, mask in self.masks.items():
            if self.rule == "paper":
                mask -= lr * mask * mask * gradients[name]  # theta' - rho theta' theta' g, divided by theta
            elif self.rule == "sgd":
                mask -= lr * gradients[name]
            mask.grad = gradients[name]
        if self._adam:
            self._adam.param_groups[0]["lr"] = lr  # falls along half a cosine where masks become binary
            self._adam.step()
        if self.rule != "paper":
            for mask in self.masks.values():
                mask.clamp_(0, 1)  # above 1 an entry would be amplified, below 0 turned round: no neuron does either
        for name, (begin, end) in self._spans.items():
            flat = self.masks[name].view(-1)
            flat[:begin], flat[end:] = 1, 1  # rows that make something else

    @property
    def count(self) -> int:
        """How many masks are searched."""
        return sum(end - begin for begin, end in self._spans.values())

    def share_below(self, threshold: float) -> float:
        """Share of all mask entries below a threshold."""
        found = [mask.detach().view(-1)[slice(*self._spans[name])] for name, mask in self.masks.items()]
        return sum(int((mask < threshold).sum()) for mask in found) / sum(map(len, found))

    def share_shut(self, step: int, threshold: float) -> float:
        """Share of the weights that a step shut: the density, or while masks are soft those below a threshold."""
        return self.density if self.density is not None and self._is_binary(step) else self.share_below(threshold)

    def below(self, threshold: float) -> dict[str, Tensor]:
        """Sorted flat positions whose mask is below a threshold, by name; names without any are left out."""
        return self.entries((self._flat(self.masks) < threshold).nonzero().flatten())

    def lowest(self, density: float) -> dict[str, Tensor]:
        """The share ``density`` of all positions with the lowest mask; ties fall to the higher saliency, then to the first.

        Of rows it is the share of the rows.
        """
        return self.entries(self._places_of_lowest(density))

    def _places_of_lowest(self, density: float) -> Tensor:
        """The same in all weights laid end to end, in no order."""
        masks = self._flat(self.masks).numpy()
        count = round(density * len(masks))
        if not count:
            return torch.zeros(0, dtype=torch.int64)
        limit = np.partition(masks, count - 1)[count - 1]  # the highest mask among those chosen; nothing is sorted
        sure, tied = np.flatnonzero(masks < limit), np.flatnonzero(masks == limit)
        if len(sure) + len(tied) > count:
            tied = tied[first_lowest(-self._flat(self.saliency.values).numpy()[tied], count - len(sure))]
        return torch.from_numpy(np.concatenate([sure, tied]))

    def most_salient(self, density: float) -> dict[str, Tensor]:
        """The share ``density`` of all positions with the highest saliency: the published criterion."""
        saliency = self._flat(self.saliency.values).numpy()
        count = round(density * len(saliency))
        return self.entries(torch.from_numpy(first_lowest(-saliency, count))) if count else {}

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs; ``restore`` is the inverse."""
        optimizer = optimizer_tensors(self._adam) if self._adam else {}
        running = self.saliency.tensors() | self._square.tensors("square.")
        masks = {f"mask.{name}": mask for name, mask in self.masks.items()}
        return masks | running | optimizer | {"done": torch.tensor(self.done)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what ``state`` gave."""
        self.done = int(tensors["done"])
        with torch.no_grad():
            for name, mask in self.masks.items():
                mask.copy_(tensors[f"mask.{name}"])
        device = next(iter(self.masks.values())).device
        self.saliency.restore(tensors, self.done, device)
        self._square.restore(tensors, self.done, device, "square.")
        if self._adam:
            load_optimizer(self._adam, tensors)

    def _flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """All searched masks laid end to end, in the order of ``weights`` whatever the order of ``tensors``."""
        return torch.cat([tensors[name].detach().flatten()[slice(*self._spans[name])].cpu() for name in self.weights])

    def entries(self, places: Tensor) -> dict[str, Tensor]:
        """Places in all masks laid end to end -> sorted flat positions of the entries they stand for, by name."""
        found = {}
        for name, masks in self._split(places).items():
            shared = self._shared[name]
            found[name] = (
                masks[:, None] * shared + torch.arange(shared)
            ).flatten()  # (masks, shared) one after the other
        return found

    def _split(self, positions: Tensor) -> dict[str, Tensor]:
        """Places in all searched masks laid end to end -> sorted places by name."""
        positions, start, found = positions.sort().values, 0, {}  # (chosen,) in all weights end to end
        for name in self.weights:
            begin, end = self._spans[name]
            inside = (positions >= start) & (positions < start + end - begin)
            if inside.any():
                found[name] = positions[inside] - start + begin
            start += end - begin
        return found
