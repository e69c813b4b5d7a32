"""Parts of an edit that name single entries of parameters: shut to zero, or given values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from photopic.core.editfile.value_codes import LEVELS
from photopic.core.edits.part import Part, within
from photopic.core.edits.positions import Positions, Write, base_at, is_finite
from photopic.core.errors import EditError
from photopic.core.numerics.int8_steps import to_steps
from photopic.core.numerics.quantise import to_levels

_DTYPES = {32: torch.float32, 16: torch.float16, 8: torch.float32, 2: torch.float32}


class _AtPositions(Part, ABC):
    """What the two kinds share: sorted positions by parameter."""

    indices: Mapping[str, Tensor]

    @property
    def is_empty(self) -> bool:
        return not self.indices

    @property
    def count(self) -> int:
        """How many entries it writes to."""
        return sum(len(positions) for positions in self.indices.values())

    def names(self) -> tuple[str, ...]:
        """The parameters it writes to."""
        return tuple(self.indices)

    def check_fits(self, name: str, shape: tuple[int, ...]) -> None:
        size, last = math.prod(shape), int(self.indices[name][-1])
        if last >= size:
            raise EditError(f"{name}: expected positions below {size}, found {last}")

    def restricted(self, keep: Callable[[str], bool], outside: Mapping[str, Positions]) -> Sequence[Part]:
        gone = {name: within(keep, outside, name) for name in self.indices}
        if all(each is not None and not len(each) for each in gone.values()):
            return (self,)
        return (self._at({name: _free(positions, gone[name]) for name, positions in self.indices.items()}),)

    @abstractmethod
    def _at(self, free: Mapping[str, Tensor]) -> Part:
        """The same with the positions of a mask for each parameter."""


@dataclass(frozen=True, eq=False)
class ZeroedWeights(_AtPositions):
    """Entries that become zero. A binary mask over existing weights is one: `ZeroedWeights.of_masks`.

    Attributes:
        indices: Tensor name to its flat positions, int64, strictly increasing; tensors without any are left out.

    Example:
        >>> ZeroedWeights({"unet.to_k.weight": torch.tensor([0, 7])}).count
        2
    """

    kind: ClassVar[str] = "shut"
    zeroes: ClassVar[bool] = True
    indices: Mapping[str, Tensor]

    @classmethod
    def of_masks(cls, masks: Mapping[str, Tensor]) -> ZeroedWeights:
        """What binary masks take away: the entries where a mask is False or 0; `masks` is the inverse.

        Args:
            masks: Tensor name to a mask in its shape, bool or 0 and 1.

        Raises:
            EditError: If a mask holds other values.

        Example:
            >>> ZeroedWeights.of_masks({"w": torch.tensor([[True, False], [True, True]])}).indices
            {'w': tensor([1])}
        """
        for name, mask in masks.items():
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise EditError(f"{name}: expected a mask of 0 and 1, found other values")
        return cls({name: (mask.reshape(-1) == 0).nonzero().squeeze(1) for name, mask in masks.items()})

    def masks(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The binary masks: True where an entry stays.

        Args:
            shapes: Shape of each tensor; those this part does not name keep every entry.
        """
        found = {}
        for name, shape in shapes.items():
            mask = torch.ones(torch.Size(shape).numel(), dtype=torch.bool)
            mask[self.indices.get(name, torch.zeros(0, dtype=torch.int64))] = False  # flat positions
            found[name] = mask.view(shape)
        return found

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", _checked_indices(self.indices))

    def change(self, name: str) -> Write:
        """What becomes of one parameter."""
        return Write(self.indices[name], None, name=name)

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        found = {name: base_at(base, name, positions) for name, positions in self.indices.items()}
        return SparseWeights(self.indices, {name: old + weight * (0.0 - old) for name, old in found.items()})

    def _at(self, free: Mapping[str, Tensor]) -> ZeroedWeights:
        return ZeroedWeights({name: self.indices[name][mask] for name, mask in free.items()})


@dataclass(frozen=True, eq=False)
class SparseWeights(_AtPositions):
    """Entries that become given values, or that given values are added to.

    Attributes:
        indices: As in `ZeroedWeights`.
        values: For each tensor one finite value a position: float16 for 16 bits, else float32.
        bits: 32, 16, 8 or 2. With 8 bits each value is a whole number, -127 to 127, of one step a tensor; with 2 bits each tensor
            has at most four different values. `SparseWeights.rounded` makes them so.
        delta: Whether the values are added to the entries rather than put in their place.
    """

    kind: ClassVar[str] = "values"
    indices: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    bits: int = 32
    delta: bool = False

    def __post_init__(self) -> None:
        if self.bits not in _DTYPES:
            raise EditError(f"values: expected 32, 16, 8 or 2 bits, found {self.bits}")
        indices = _checked_indices(self.indices)
        missing = indices.keys() ^ {name for name, value in self.values.items() if value.numel()}
        if missing:
            raise EditError(f"values: {min(missing)}: expected as many values as positions, found only one of the two")
        values = {name: self._checked(name, self.values[name], len(indices[name])) for name in indices}
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "values", values)

    def _checked(self, name: str, values: Tensor, count: int) -> Tensor:
        kept = values.detach().cpu().to(_DTYPES[self.bits]).contiguous()
        if values.shape != (count,):
            raise EditError(
                f"values: {name}: expected {count} values for {count} positions, found shape {tuple(values.shape)}"
            )
        if not is_finite(kept):
            raise EditError(f"values: {name}: expected finite values, found NaN or infinity at {self.bits} bits")
        if self.bits in (8, 2):
            kept = kept + 0.0  # one zero, not two: the file has no other
        if self.bits == 2 and len(kept.unique()) > LEVELS:
            raise EditError(
                f"values: {name}: expected at most {LEVELS} values for 2 bits, found more; use SparseWeights.rounded"
            )
        if self.bits == 8 and not torch.equal(to_steps(kept), kept):
            raise EditError(
                f"values: {name}: expected whole steps from -127 to 127 for 8 bits; use SparseWeights.rounded"
            )
        if self.bits == 16 and not torch.equal(kept.to(values.dtype), values.detach().cpu()):
            raise EditError(f"values: {name}: expected values that float16 holds exactly; use SparseWeights.rounded")
        return kept

    @classmethod
    def rounded(
        cls, indices: Mapping[str, Tensor], values: Mapping[str, Tensor], bits: int, *, delta: bool = False
    ) -> SparseWeights:
        """Make values storable at ``bits``: nearest float16, nearest of 255 even steps or of four levels fitted to each tensor.

        Args:
            indices: As in `ZeroedWeights`.
            values: For each tensor one value a position, shape (positions,).
            bits: 32, 16, 8 or 2.
            delta: As in `SparseWeights`.

        Returns:
            The part with the values that a file will hold.

        Raises:
            EditError: If counts do not match or a value is not finite.

        Example:
            >>> positions, trained = {"w": torch.arange(6)}, {"w": torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 3.0])}
            >>> SparseWeights.rounded(positions, trained, bits=2).values["w"]
            tensor([0.0500, 0.0500, 1.0500, 1.0500, 2.0000, 3.0000])
        """
        rounding = {32: Tensor.float, 16: Tensor.half, 8: to_steps, 2: to_levels}
        if bits not in rounding:
            raise EditError(f"values: expected 32, 16, 8 or 2 bits, found {bits}")
        for name, value in values.items():
            if not is_finite(value):
                raise EditError(f"values: {name}: expected finite values, found NaN or infinity")
        return cls(indices, {name: rounding[bits](value.detach().cpu()) for name, value in values.items()}, bits, delta)

    @property
    def adds(self) -> bool:
        """Whether the values are added."""
        return self.delta

    def change(self, name: str) -> Write:
        """What becomes of one parameter."""
        return Write(self.indices[name], self.values[name], adds=self.delta, name=name)

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        values = {name: each.float() for name, each in self.values.items()}
        if self.delta:
            return SparseWeights(self.indices, {name: weight * each for name, each in values.items()}, 32, True)
        found = {name: base_at(base, name, positions) for name, positions in self.indices.items()}
        return SparseWeights(self.indices, {name: old + weight * (values[name] - old) for name, old in found.items()})

    def at_bits(self, bits: int) -> Sequence[Part]:
        if not bits:
            return () if self.delta else (ZeroedWeights(self.indices),)
        if self.bits <= bits:
            return (self,)
        exact = {name: each.float() for name, each in self.values.items()}
        return (SparseWeights.rounded(self.indices, exact, bits, delta=self.delta),)

    def _at(self, free: Mapping[str, Tensor]) -> SparseWeights:
        indices = {name: self.indices[name][mask] for name, mask in free.items()}
        values = {name: self.values[name][mask] for name, mask in free.items()}
        # at 8 bits the step follows from the largest value, which may be gone
        is_held = self.bits != 8 or all(torch.equal(to_steps(each), each) for each in values.values())
        return SparseWeights(indices, values, self.bits if is_held else 32, self.delta)


def _free(positions: Tensor, gone: Positions) -> Tensor:
    """Which positions are not taken, as a mask."""
    return torch.zeros(len(positions), dtype=torch.bool) if gone is None else ~torch.isin(positions, gone)  # (count,)


def _checked_indices(indices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    checked = {}
    for name, positions in sorted(indices.items()):
        if positions.dtype != torch.int64 or positions.ndim != 1:
            found = f"{positions.dtype} of shape {tuple(positions.shape)}"
            raise EditError(f"{name}: expected positions as one int64 vector, found {found}")
        positions = positions.detach().cpu().contiguous()
        if len(positions) and (int(positions[0]) < 0 or not bool((positions[1:] > positions[:-1]).all())):
            raise EditError(
                f"{name}: expected strictly increasing positions from 0 on, found them negative or unsorted"
            )
        if len(positions):
            checked[name] = positions
    return checked
