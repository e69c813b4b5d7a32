"""Streaming statistics of per-parameter gradients, in float32 whatever the model's precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class StreamingMean:
    """The mean of named tensors over a stream of them; its scale does not depend on how many came.

    Example:
        >>> mean = StreamingMean()
        >>> mean.update({"w": torch.tensor([1.0])})
        >>> mean.update({"w": torch.tensor([3.0])})
        >>> mean.values["w"]
        tensor([2.])
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    @property
    def values(self) -> dict[str, Tensor]:
        """The means so far, by name."""
        return {name: total / self.count for name, total in self._sums.items()}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Take in one more value of every name."""
        for name, value in values.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(value, dtype=torch.float32)
            self._sums[name] += value.detach()
        self.count += 1

    def tensors(self, prefix: str = "sum.") -> dict[str, Tensor]:
        """The sums by prefixed name, for a checkpoint; ``restore`` is the inverse."""
        return {prefix + name: total for name, total in self._sums.items()}

    def restore(self, tensors: Mapping[str, Tensor], count: int, device: torch.device, prefix: str = "sum.") -> None:
        """Put back what ``tensors`` gave, after ``count`` updates."""
        self.count = count
        kept = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self._sums = {name: value.to(device) for name, value in kept.items()}
