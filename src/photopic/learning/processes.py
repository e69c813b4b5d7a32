"""One step on several processes, as ``accelerate launch`` starts them: each takes its share, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from photopic.core.errors import DataError


class Processes:
    """The processes that compute one training; one alone where nothing started several.

    Example:
        >>> Processes().share(4), Processes().count
        (slice(0, None, 1), 1)
    """

    @property
    def count(self) -> int:
        """How many there are."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @cached_property
    def accelerator(self) -> Any:
        """accelerate's, which knows this process's device and reaches the others; made when it is first needed."""
        from accelerate import Accelerator

        return Accelerator()

    @property
    def device(self) -> torch.device:
        """Where this process of several computes."""
        return torch.device(self.accelerator.device)

    def share(self, batch: int) -> slice:
        """The places of a batch that are this process's.

        Raises:
            DataError: If there are more processes than places.
        """
        if self.count == 1:
            return slice(0, None, 1)
        if batch < self.count:
            raise DataError(f"batch: expected at least {self.count}, one for each process, found {batch}")
        return slice(self.accelerator.process_index, None, self.count)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes; none counts as zero."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over the processes."""
        return value if self.count == 1 else self.accelerator.reduce(value, "mean")

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over the processes."""
        return list(tensors) if self.count == 1 else [self.accelerator.reduce(each, "sum") for each in tensors]

    def gathered(self, values: Tensor, count: int) -> Tensor:
        """The numbers of all processes, (count,), from what each found of its ``share``."""
        if self.count == 1:
            return values
        whole = values.new_zeros(count)
        whole[self.share(count)] = values
        gathered: Tensor = self.accelerator.reduce(whole, "sum")
        return gathered
