"""What an edit is made of: entries shut to zero, entries with new values, rows of a new token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import EditError

LEVELS = 4  # what 2 bits tell apart
_ROW_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_DTYPES = {32: torch.float32, 16: torch.float16, 2: torch.float32}


@dataclass(frozen=True, eq=False)
class Shut:
    """Entries that become zero.

    Attributes:
        indices: Tensor name to its flat positions, int64, strictly increasing; tensors without any are left out.

    Example:
        >>> Shut({"unet.to_k.weight": torch.tensor([0, 7])}).count
        2
    """

    indices: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", _checked_indices(self.indices))

    @property
    def count(self) -> int:
        """How many entries become zero."""
        return sum(len(positions) for positions in self.indices.values())


@dataclass(frozen=True, eq=False)
class Values:
    """Entries that become given values.

    Attributes:
        indices: As in `Shut`.
        values: For each tensor one finite value a position: float32 for 32 and 2 bits, float16 for 16 bits.
        bits: 32, 16 or 2; with 2 bits each tensor has at most four different values. `Values.rounded` makes them so.
    """

    indices: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    bits: int = 32

    def __post_init__(self) -> None:
        if self.bits not in _DTYPES:
            raise EditError(f"values: expected 32, 16 or 2 bits, found {self.bits}")
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
        if not bool(torch.isfinite(kept).all()):
            raise EditError(f"values: {name}: expected finite values, found NaN or infinity at {self.bits} bits")
        if self.bits == 2 and len(kept.unique()) > LEVELS:
            raise EditError(
                f"values: {name}: expected at most {LEVELS} values for 2 bits, found more; use Values.rounded"
            )
        if self.bits == 16 and not torch.equal(kept.to(values.dtype), values.detach().cpu()):
            raise EditError(f"values: {name}: expected values that float16 holds exactly; use Values.rounded")
        return kept

    @classmethod
    def rounded(cls, indices: Mapping[str, Tensor], values: Mapping[str, Tensor], bits: int) -> Values:
        """Make values storable at ``bits``: nearest float16, or the nearest of four levels fitted to each tensor.

        Args:
            indices: As in `Shut`.
            values: For each tensor one value a position, shape (positions,).
            bits: 32, 16 or 2.

        Returns:
            The part with the values that a file will hold.

        Raises:
            EditError: If counts do not match or a value is not finite.

        Example:
            >>> positions, trained = {"w": torch.arange(6)}, {"w": torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 3.0])}
            >>> Values.rounded(positions, trained, bits=2).values["w"]
            tensor([0.0500, 0.0500, 1.0500, 1.0500, 2.0000, 3.0000])
        """
        rounding = {32: Tensor.float, 16: Tensor.half, 2: _to_levels}
        if bits not in rounding:
            raise EditError(f"values: expected 32, 16 or 2 bits, found {bits}")
        return cls(indices, {name: rounding[bits](value.detach().cpu()) for name, value in values.items()}, bits)

    @property
    def count(self) -> int:
        """How many entries get a value."""
        return sum(len(positions) for positions in self.indices.values())


@dataclass(frozen=True, eq=False)
class TokenRows:
    """A new token and its input embedding in each text encoder.

    Attributes:
        token: How it is written in a prompt, without spaces.
        rows: Component, such as ``text_encoder``, to the embedding of the token, shape (dim,), finite.

    Example:
        >>> TokenRows("<mine>", {"text_encoder": torch.zeros(8)}).token
        '<mine>'
    """

    token: str
    rows: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not self.token or any(letter.isspace() for letter in self.token):
            raise EditError(f"token {self.token!r}: expected a word without spaces, such as '<mine>'")
        rows = {name: row.detach().cpu().contiguous() for name, row in sorted(self.rows.items())}
        for name, row in rows.items():
            if row.ndim != 1 or not len(row) or row.dtype not in _ROW_DTYPES or not bool(torch.isfinite(row).all()):
                found = f"{row.dtype} of shape {tuple(row.shape)}"
                raise EditError(
                    f"token {self.token!r}: {name}: expected a finite float32 or half vector, found {found}"
                )
        if not rows:
            raise EditError(f"token {self.token!r}: expected a row for at least one text encoder, found none")
        object.__setattr__(self, "rows", rows)


Part = Shut | Values | TokenRows


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


def _to_levels(values: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
    """Lloyd's algorithm in one dimension from the quartile means: each value becomes the mean of its group."""
    values = values.float()
    distinct = values.unique()
    if len(distinct) <= LEVELS or not bool(torch.isfinite(distinct).all()):
        return values
    ordered = values.double().sort().values
    levels = torch.stack([part.mean() for part in ordered.tensor_split(LEVELS)])
    for _ in range(50):
        group = torch.bucketize(ordered, (levels[1:] + levels[:-1]) / 2)
        sums = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, group, ordered)
        counts = torch.bincount(group, minlength=LEVELS)
        updated = torch.where(counts > 0, sums / counts.clamp(min=1), levels)
        if torch.equal(updated, levels):
            break
        levels = updated
    return levels[torch.bucketize(values.double(), (levels[1:] + levels[:-1]) / 2)].float()
