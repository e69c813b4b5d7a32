"""A sum over the bits of a tensor that tells whether any of them changed, at the speed at which memory is read.

The bits as 64-bit words w get the sum of r w modulo 2^64 with odd random weights r: one word that differs always changes it, since
an odd number has an inverse, and several do but for one in about 2^64 cases. Runs of words are folded into one number by powers of
an odd multiplier, so that runs do not change places unseen. It is no secret: it tells accidents, not forgeries.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt64
from torch import Tensor

_RUN = 1 << 15  # words that are weighted at a time; they and their weights stay in the cache
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd; 2^64 over the golden ratio
_MASK = (1 << 64) - 1


class BitSums:
    """Sums of several tensors with the same weights.

    Example:
        >>> sums = BitSums()
        >>> sums.of(torch.tensor([0.0, 1.0])) == sums.of(torch.tensor([-0.0, 1.0]))
        False
    """

    def of(self, tensor: Tensor) -> int:
        """The sum of a tensor's bits in the order of its entries, on any device."""
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        whole = flat.numel() // 8 * 8
        total = int.from_bytes(bytes(flat[whole:].tolist()), "little")  # of the last word what there is
        runs = self._of_runs(flat[:whole]) if flat.device.type == "cpu" else self._of_runs_there(flat[:whole])
        for each in runs:
            total = (total * _MULTIPLIER + each) & _MASK
        return total

    @cached_property
    def _weights(self) -> UInt64[np.ndarray, " words"]:
        return np.random.default_rng(0).integers(1 << 64, size=_RUN, dtype=np.uint64) | np.uint64(1)

    def _of_runs(self, data: Tensor) -> list[int]:
        words = data.numpy().view(np.uint64)  # (bytes,) -> (words,)
        runs = [words[start : start + _RUN] for start in range(0, len(words), _RUN)]
        return [int(np.dot(run, self._weights[: len(run)])) for run in runs]  # integers: exact modulo 2^64

    def _of_runs_there(self, data: Tensor) -> list[int]:
        """The same on an accelerator, where products and sums of int64 wrap alike."""
        words = data.clone().view(torch.int64)  # a copy starts at a whole word
        weights = torch.from_numpy(self._weights.view(np.int64)).to(data.device)
        sums = [(run * weights[: len(run)]).sum() for run in words.split(_RUN)]
        return [each & _MASK for each in torch.stack(sums).tolist()] if sums else []
