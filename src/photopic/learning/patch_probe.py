"""A linear probe over the vectors of patches: what class each pixel is, read by one linear layer from a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError

ITERATIONS = 100  # of L-BFGS at most


@dataclass(frozen=True, eq=False)
class PatchProbe:
    """What ``fit_patch_probe`` gives.

    Attributes:
        weight: Over vectors less ``mean``, in ``spread``.
        bias: A number a class.
        mean: Of the vectors that it was fitted on.
        spread: Their standard deviation.
    """

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " width"]
    spread: Float[Tensor, " width"]

    def predict(self, tokens: Float[Tensor, "n patches width"], size: int) -> Int64[Tensor, "n size size"]:
        """The class of every pixel: logits of patches, bilinear in between."""
        logits = (tokens - self.mean) / self.spread @ self.weight.mT + self.bias  # (n, patches, classes)
        grid = round(tokens.shape[1] ** 0.5)
        maps = logits.mT.unflatten(2, (grid, grid))  # (n, classes, grid, grid)
        return F.interpolate(maps, (size, size), mode="bilinear").argmax(1)


def fit_patch_probe(
    tokens: Float[Tensor, "n patches width"], labels: Int64[Tensor, "n size size"], classes: int, *, decay: float = 1e-4
) -> PatchProbe:
    """Multinomial logistic regression from the vector of each patch to the shares of classes among its pixels.

    The loss is convex, so that what is found depends on neither a seed nor a rate.

    Args:
        tokens: Of whole pictures, row by row of a square grid.
        labels: The class of each pixel.
        classes: How many there are.
        decay: Half of it times the squared weights is added to the mean cross-entropy of a patch.

    Raises:
        DataError: If patches are in no square grid, or the pictures' side is no multiple of its.

    Example:
        >>> labels = torch.tensor([[[0, 0, 1, 1]] * 4])
        >>> tokens = torch.tensor([[[-1.0], [1.0], [-1.0], [1.0]]])
        >>> fit_patch_probe(tokens, labels, 2).predict(tokens, 2)[0].tolist()
        [[0, 1], [0, 1]]
    """
    grid, size = round(tokens.shape[1] ** 0.5), labels.shape[-1]
    if grid**2 != tokens.shape[1] or size % grid:
        raise DataError(
            f"patches: expected a square grid whose side divides {size} pixels, found {tokens.shape[1]} patches"
        )
    shares = F.avg_pool2d(F.one_hot(labels, classes).movedim(3, 1).float(), size // grid)  # (n, classes, grid, grid)
    wanted = shares.flatten(2).mT.flatten(0, 1)  # (n patches, classes)
    rows = tokens.flatten(0, 1)
    mean, spread = rows.mean(0), rows.std(0).clamp(min=1e-6)
    rows = (rows - mean) / spread
    weight = torch.zeros(classes, tokens.shape[2], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(rows @ weight.mT + bias, wanted) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return PatchProbe(weight.detach(), bias.detach(), mean, spread)
