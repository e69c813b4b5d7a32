"""Trainable values at fixed positions of some weights, kept at few bits; the weights themselves are never written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from photopic.core.numerics.quantise import fit_levels, level_codes
from photopic.core.runs import load_optimizer, optimizer_tensors

Bits = Literal[32, 16, 2]


class SparseValues:
    """Values in the place of some entries of some weights, and their optimiser.

    Args:
        weights: The weights the entries belong to, by name; they stay as they are.
        positions: Sorted flat positions of the entries, by name.
        start: The first value of each entry, by name.
        bits: What the values are kept at; 2: four levels a weight, once ``fit_levels`` was called.
        lr: Of Adam on the values.

    Attributes:
        values: The trainable values by name, float32.
        share: Share of the entries of all ``weights`` that have such a value.

    Example:
        >>> values = SparseValues({"w": torch.ones(3)}, {"w": torch.tensor([1])}, {"w": torch.zeros(1)}, bits=32, lr=0.1)
        >>> values.weights()["w"].tolist()
        [1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        positions: Mapping[str, Int[Tensor, " n"]],
        start: Mapping[str, Float[Tensor, " n"]],
        *,
        bits: Bits,
        lr: float,
    ):
        self.base, self.positions, self.bits = {name: weights[name] for name in positions}, dict(positions), bits
        self.values = {name: start[name].float().clone().requires_grad_() for name in positions}
        self.levels: dict[str, Tensor] = {}  # by name, up to four each, once fitted
        self.optimizer = torch.optim.Adam(self.values.values(), lr=lr)
        self.share = sum(map(len, positions.values())) / sum(weight.numel() for weight in weights.values())

    def weights(self) -> dict[str, Tensor]:
        """The effective weights, differentiable in the values; rounded ones pass the gradient straight through."""
        return self.written(
            {name: value + (self._rounded(name) - value).detach() for name, value in self.values.items()}
        )

    def written(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The base weights with ``values`` at the positions."""
        return {
            name: base.view(-1)
            .index_copy(0, self.positions[name].to(base.device), values[name].to(base.dtype))
            .view(base.shape)
            for name, base in self.base.items()
        }

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One Adam step with the gradients of the values, in their order."""
        for value, gradient in zip(self.values.values(), gradients, strict=True):
            value.grad = gradient  # given from outside: the graph is of the loss alone
        self.optimizer.step()

    def fit_levels(self) -> None:
        """Fit the four levels of every weight to its values, once."""
        if not self.levels:
            self.levels = {name: fit_levels(value) for name, value in self.values.items()}

    def final(self) -> dict[str, Tensor]:
        """The values at the precision they are stored in, as float32."""
        if self.bits == 2:
            self.fit_levels()
        return {name: self._rounded(name).detach() for name in self.values}

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs; ``restore`` is the inverse."""
        values = {f"value.{name}": value for name, value in self.values.items()}
        levels = {f"levels.{name}": level for name, level in self.levels.items()}
        return values | levels | optimizer_tensors(self.optimizer)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what ``state`` gave."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(tensors[f"value.{name}"])
                if f"levels.{name}" in tensors:
                    self.levels[name] = tensors[f"levels.{name}"].to(value.device)
        load_optimizer(self.optimizer, tensors)

    def _rounded(self, name: str) -> Tensor:
        value = self.values[name]
        if self.bits == 16:
            return value.half().float()
        if name in self.levels:
            return self.levels[name][level_codes(value, self.levels[name])]
        return value
