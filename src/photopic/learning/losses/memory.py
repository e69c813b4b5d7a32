"""A memory budget for the concept-implanting loss: how many problems fit into it together, found by measuring one.

Every tensor that a step makes is counted as it is made and as it goes, forward and backward, so the measure is the same on
every device. What a kernel takes for itself while it runs is not seen; a fifth of the budget is left for it.
"""

from __future__ import annotations

import re
import resource
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from photopic.core.errors import DataError, ModelError
from photopic.learning.losses.denoising import ConceptLoss, Limits

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
KERNELS = 0.2  # share of the budget for what is not counted: 1.1 of 6 GiB at 512 pixels on a CPU


def bytes_of(memory: str) -> int:
    """A size as one types it.

    Raises:
        DataError: If it is no number with KiB, MiB or GiB behind it.

    Example:
        >>> bytes_of("6GiB")
        6442450944
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB)", memory.strip())
    if found is None:
        raise DataError(f"memory: expected a size such as 6GiB or 800MiB, found {memory!r}")
    return int(float(found[1]) * UNITS[found[2]])


def limits_within(loss: ConceptLoss, weights: Mapping[str, Tensor], memory: str) -> Limits:
    """The limits under which a step stays within a budget for the whole process; those that are fastest.

    Args:
        loss: As it will be descended on; it is left as it is.
        weights: What will be searched, by name.
        memory: The budget, such as ``6GiB``.

    Raises:
        DataError: If the budget cannot be read.
        ModelError: If not even one problem fits; says how much would.

    Example:
        >>> limits_within(loss, attention_weights(model), "6GiB")  # doctest: +SKIP
        Limits(at_once=2, recompute=False)
    """
    budget, there = bytes_of(memory), held_bytes(loss.model.device)
    state = 6 * 4 * sum(weight.numel() for weight in weights.values())  # mask, gradient, Adam's two, saliency, product
    left = (1 - KERNELS) * budget - there - state
    together = loss.batch * (1 if loss.prior is None else 2)
    needed = 0
    for recompute in (False, True):
        needed = step_bytes(loss, weights, recompute=recompute)
        if needed <= left:
            return Limits(min(together, int(left // needed)), recompute)
    least = (there + state + needed) / (1 - KERNELS)
    raise ModelError(
        f"memory {memory}: {loss.model.name} needs {least / 2**30:.2g} GiB for a step of one picture at a time, of which "
        f"{there / 2**30:.2g} GiB are there already; give more, or search fewer layers"
    )


def step_bytes(loss: ConceptLoss, weights: Mapping[str, Tensor], *, recompute: bool) -> int:
    """The most bytes of tensors that one problem has alive at a time, on its way forward and back."""
    limits, loss.limits = loss.limits, Limits(1, recompute)
    count = LiveBytes()
    try:
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        with count:
            loss.first_gradient(leaves)
    finally:
        loss.limits = limits
    return count.peak


def held_bytes(device: torch.device) -> int:
    """What this process holds now: on the device, or in main memory where that is the device."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # nothing says what is held now: the most so far
    return peak * (1 if sys.platform == "darwin" else 1024)


class LiveBytes(TorchDispatchMode):
    """A block in which the bytes of new tensors are counted while they live.

    Attributes:
        peak: The most at a time.

    Example:
        >>> with LiveBytes() as count:
        ...     _ = torch.ones(1000) + 1
        >>> count.peak
        8000
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.untyped_storage()._cdata not in known | self._seen.keys():
                self._count(each.untyped_storage())  # a view shares what it looks at, and is not counted twice
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self._seen[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        self._seen.pop(key, None)
