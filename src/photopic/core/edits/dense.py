"""Parts of an edit that change whole parameters: a low-rank product added (LoRA), or a dense delta (a task vector)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits.part import Part, within
from photopic.core.edits.positions import FLOATS, Positions, Write, complement, is_finite
from photopic.core.edits.sparse import SparseWeights
from photopic.core.errors import EditError

BLOCK = 1 << 18  # entries of a product that are made at a time, 1 MiB


class _Added(Part, ABC):
    """What the two kinds share: a change added to whole parameters."""

    @property
    def adds(self) -> bool:
        """Always."""
        return True

    @property
    def is_empty(self) -> bool:
        return not self.names()

    def restricted(self, keep: Callable[[str], bool], outside: Mapping[str, Positions]) -> Sequence[Part]:
        """Whole parameters stay as they are; of those touched in part the rest becomes values added."""
        gone = {name: within(keep, outside, name) for name in self.names()}
        untouched = [name for name in gone if keep(name) and name not in outside]
        if len(untouched) == len(gone):
            return (self,)
        left: list[Part] = [self._only(untouched)] if untouched else []
        indices, values = {}, {}
        for name, taken in gone.items():
            if name not in untouched and taken is not None:
                flat = self._flat(name)  # (entries,)
                indices[name] = complement(taken, len(flat))
                values[name] = flat[indices[name]].float()
        return [*left, SparseWeights(indices, values, delta=True)] if indices else left

    @abstractmethod
    def _only(self, names: Sequence[str]) -> Part:
        """The same of some of its parameters."""

    @abstractmethod
    def _flat(self, name: str) -> Float[Tensor, " count"]:
        """What is added to one parameter, entry by entry."""


@dataclass(frozen=True, eq=False)
class LowRankDelta(_Added):
    """Parameters that get scale x up @ down added (LoRA, Hu et al., arXiv 2106.09685).

    Attributes:
        up: Parameter name to its left factor, shape (out, rank).
        down: Parameter name to its right factor, shape (rank, in); of a convolution in x height x width, flattened.
        scales: Parameter name to what the product is multiplied with (alpha / rank in LoRA files); 1 where it is left out.

    Example:
        >>> part = LowRankDelta({"w": torch.ones(2, 1)}, {"w": torch.ones(1, 3)}, {"w": 0.5})
        >>> part.product("w").tolist()
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """

    kind: ClassVar[str] = "low_rank"
    up: Mapping[str, Tensor]
    down: Mapping[str, Tensor]
    scales: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.up.keys() != self.down.keys() or not self.scales.keys() <= self.up.keys():
            odd = min((self.up.keys() ^ self.down.keys()) | (self.scales.keys() - self.up.keys()))
            raise EditError(f"low-rank: {odd}: expected both factors, found only one, or a scale without factors")
        up, down = _checked(self.up, 2, "low-rank up"), _checked(self.down, 2, "low-rank down")
        for name in up:
            if up[name].shape[1] != down[name].shape[0] or up[name].dtype != down[name].dtype:
                found = f"{tuple(up[name].shape)} and {tuple(down[name].shape)}"
                raise EditError(f"low-rank: {name}: expected (out, rank) and (rank, in) of one dtype, found {found}")
        scales = {name: float(self.scales.get(name, 1.0)) for name in up}
        if not all(map(_is_finite, scales.values())):
            raise EditError(f"low-rank: expected finite scales, found {scales}")
        object.__setattr__(self, "up", up)
        object.__setattr__(self, "down", down)
        object.__setattr__(self, "scales", scales)

    @property
    def count(self) -> int:
        """How many entries of parameters it changes."""
        return sum(up.shape[0] * self.down[name].shape[1] for name, up in self.up.items())

    def names(self) -> tuple[str, ...]:
        """The parameters it writes to."""
        return tuple(self.up)

    def product(self, name: str, device: torch.device | None = None) -> Float[Tensor, "out inner"]:
        """scale x up @ down in float32."""
        blocks = [block for _, block in self.blocks(name, device)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def blocks(
        self, name: str, device: torch.device | None = None
    ) -> Iterator[tuple[int, Float[Tensor, "rows inner"]]]:
        """The product a few rows at a time, each with the number of its first: what is added at once stays in the cache."""
        up, down = self.up[name].to(device).float(), self.down[name].to(device).float()  # (out, rank), (rank, in)
        rows = max(1, BLOCK // down.shape[1])  # a block and what it is added to fit into the cache
        for first in range(0, len(up), rows):
            block = up[first : first + rows] @ down  # (rows, rank) @ (rank, in) -> (rows, in)
            yield first, block if self.scales[name] == 1 else block.mul_(self.scales[name])

    def change(self, name: str) -> Write:
        """What becomes of one parameter."""
        return Write(None, partial(self._flat, name), adds=True, name=name, blocks=partial(self.blocks, name))

    def check_fits(self, name: str, shape: tuple[int, ...]) -> None:
        _check_shape(
            name,
            (shape[0] if shape else 1, math.prod(shape[1:])),  # a convolution's in x height x width as one axis
            (self.up[name].shape[0], self.down[name].shape[1]),
        )

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        return replace(self, scales={name: weight * each for name, each in self.scales.items()})

    def _only(self, names: Sequence[str]) -> LowRankDelta:
        up, down = ({name: each[name] for name in names} for each in (self.up, self.down))
        return LowRankDelta(up, down, {name: self.scales[name] for name in names})

    def _flat(self, name: str) -> Float[Tensor, " count"]:
        return self.product(name).reshape(-1)


@dataclass(frozen=True, eq=False)
class DenseDelta(_Added):
    """Whole parameters that get a tensor added: a dense delta, or a task vector (Ilharco et al., arXiv 2212.04089).

    Attributes:
        deltas: Parameter name to what is added, in its shape, finite.

    Example:
        >>> DenseDelta({"w": torch.ones(2, 3)}).count
        6
    """

    kind: ClassVar[str] = "delta"
    deltas: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", _checked(self.deltas, None, "delta"))

    @property
    def count(self) -> int:
        """How many entries of parameters it changes."""
        return sum(delta.numel() for delta in self.deltas.values())

    def names(self) -> tuple[str, ...]:
        """The parameters it writes to."""
        return tuple(self.deltas)

    def change(self, name: str) -> Write:
        """What becomes of one parameter."""
        return Write(None, self._flat(name), adds=True, name=name)

    def check_fits(self, name: str, shape: tuple[int, ...]) -> None:
        _check_shape(name, tuple(shape), tuple(self.deltas[name].shape))

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        return DenseDelta({name: weight * delta.float() for name, delta in self.deltas.items()})

    def _only(self, names: Sequence[str]) -> DenseDelta:
        return DenseDelta({name: self.deltas[name] for name in names})

    def _flat(self, name: str) -> Float[Tensor, " count"]:
        return self.deltas[name].reshape(-1)


def _check_shape(name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> None:
    if expected != found:
        raise EditError(f"{name}: expected a change of shape {expected}, found {found}")


def _checked(tensors: Mapping[str, Tensor], axes: int | None, what: str) -> dict[str, Tensor]:
    checked = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    for name, tensor in checked.items():
        if tensor.dtype not in FLOATS or not tensor.numel() or axes not in (None, tensor.ndim):
            found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise EditError(f"{what}: {name}: expected float32, float16 or bfloat16 entries, found {found}")
        if not is_finite(tensor):
            raise EditError(f"{what}: {name}: expected finite values, found NaN or infinity")
    return checked


def _is_finite(value: float) -> bool:
    return value - value == 0
