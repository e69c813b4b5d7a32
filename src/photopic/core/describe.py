"""What an edit touches and what it costs: the numbers behind ``photopic inspect``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Size

from photopic.core import indices
from photopic.core._parts import Shut, TokenRows, Values
from photopic.core.editfile import to_bytes
from photopic.core.edits import Edit

_INT32_BYTES = 4


@dataclass(frozen=True)
class TensorCost:
    """What one part does to one tensor.

    Attributes:
        name: ``<component>.<parameter>``.
        kind: ``shut``, ``values`` or ``token``.
        shape: Of the tensor, or of the added row.
        count: Entries touched, or added.
        density: Share of the tensor's entries that is touched; 1 for a token.
        index_bytes: What the coded positions take in the file.
        value_bytes: What the values or rows take in the file.
        naive_bytes: What the positions would take as int32.
        entropy_bytes: What the positions cost at least if each were drawn alone with this density.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    count: int
    density: float
    index_bytes: int
    value_bytes: int
    naive_bytes: int
    entropy_bytes: float


@dataclass(frozen=True)
class Description:
    """An edit in numbers; `to_dict` gives JSON values.

    Attributes:
        tensors: One row a part and tensor, in the order of the parts.
        tokens: The tokens it adds.
        base_name: The model it was made for.
        base_digest: That model's content, hex SHA-256.
        provenance: How it was made.
        file_bytes: The size of its file.
        count: Entries shut or changed in all.
        size: Entries of all touched tensors.
        index_bytes: Of all coded positions.
        naive_bytes: Of all positions as int32.
        entropy_bytes: Of all positions at least, each tensor at its own density.
    """

    tensors: tuple[TensorCost, ...]
    tokens: tuple[str, ...]
    base_name: str
    base_digest: str
    provenance: dict[str, Any]
    file_bytes: int
    count: int
    size: int
    index_bytes: int
    naive_bytes: int
    entropy_bytes: float

    @property
    def density(self) -> float:
        """Share of the touched tensors' entries that is shut or changed."""
        return self.count / self.size if self.size else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "density": self.density}


def describe(edit: Edit) -> Description:
    """Count what an edit touches and what it costs.

    Args:
        edit: Any edit.

    Returns:
        One row a touched tensor and the sums.

    Example:
        >>> describe(load("bear.edit")).density  # doctest: +SKIP
        0.18
    """
    rows = tuple(row for part in edit.parts for row in _rows(part, edit))
    entries = [row for row in rows if row.kind != "token"]
    return Description(
        tensors=rows,
        tokens=edit.tokens,
        base_name=edit.base.name,
        base_digest=edit.base.digest,
        provenance=dict(edit.provenance),
        file_bytes=len(to_bytes(edit)),
        count=sum(row.count for row in entries),
        size=sum(Size(shape).numel() for shape in edit.shapes.values()),
        index_bytes=sum(row.index_bytes for row in entries),
        naive_bytes=sum(row.naive_bytes for row in entries),
        entropy_bytes=sum(row.entropy_bytes for row in entries),
    )


def _rows(part: Shut | Values | TokenRows, edit: Edit) -> list[TensorCost]:
    if isinstance(part, TokenRows):
        return [
            TensorCost(
                f"{name}: {part.token}",
                "token",
                tuple(row.shape),
                len(row),
                1.0,
                0,
                row.numel() * row.element_size(),
                0,
                0.0,
            )
            for name, row in part.rows.items()
        ]
    rows = []
    for name, positions in part.indices.items():
        count, size = len(positions), Size(edit.base.shapes[name]).numel()
        kind, value_bytes = "shut", 0
        if isinstance(part, Values):
            kind, value_bytes = (
                "values",
                -(-count * part.bits // 8) + (16 if part.bits == 2 else 0),
            )  # 16: four float32 levels
        coded = len(indices.encode(positions.numpy(), size))
        rows.append(
            TensorCost(
                name, kind, tuple(edit.base.shapes[name]), count, count / size,
                coded, value_bytes, _INT32_BYTES * count, indices.entropy_bytes(count, size),
            )
        )  # fmt: skip
    return rows
