"""What an edit touches, what it holds and what it costs: the numbers behind ``photopic inspect``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from photopic.core.config import Flags
from photopic.core.editfile import indices
from photopic.core.editfile.content import AnyEdit, PartContent
from photopic.core.editfile.rows import WEIGHTS, Row, detail_of, rows_of, touched
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.nn.layer_names import place, running_order
from photopic.core.results import Report
from photopic.edit._common import as_content, labels
from photopic.edit._inspect_view import inspect_view
from photopic.edit._summaries import ValueSummary, summary

_INT32_BYTES = 4


@dataclass(frozen=True)
class TensorCost:
    """What one part does to one tensor, module or text encoder.

    Attributes:
        name: ``<component>.<parameter>`` or ``<component>.<module>``; of words ``<component>: <words>``.
        kind: Of the part: ``shut``, ``values``, ``low_rank``, ``delta``, ``token``, ``residual``, ``insertion``, ``direction``,
            ``noise``, ``tuner`` or ``head``.
        part: The number of the part, from 0.
        shape: Of the tensor, or of what is added.
        count: Entries touched, or added.
        density: Share of the tensor's entries that is touched; 1 for what is added.
        index_bytes: What the coded positions take in the file.
        value_bytes: What the values, factors or rows take in the file.
        naive_bytes: What the positions would take as int32.
        entropy_bytes: What the positions cost at least if each were drawn alone with this density.
        norm: Euclidean norm of what is added to the tensor at weight 1; None where that depends on the base.
    """

    name: str
    kind: str
    part: int
    shape: tuple[int, ...]
    count: int
    density: float
    index_bytes: int
    value_bytes: int
    naive_bytes: int
    entropy_bytes: float
    norm: float | None

    @property
    def changes_weights(self) -> bool:
        """Whether it changes parameters, rather than adding words, modules, directions or noise."""
        return self.kind in WEIGHTS


@dataclass(frozen=True)
class PartSummary:
    """One part of an edit.

    Attributes:
        kind: See `TensorCost`.
        detail: What is particular to it, such as its precision or rank.
        tensors: How many tensors, modules or text encoders it touches.
        count: Entries it touches or adds.
        bytes: What it takes in the file, positions and values.
        values: The numbers it holds; None where it holds only positions.
    """

    kind: str
    detail: str
    tensors: int
    count: int
    bytes: int
    values: ValueSummary | None


@dataclass(frozen=True)
class BlockSum:
    """What an edit changes in one block of the network.

    Attributes:
        name: See `photopic.core.nn.layer_names.place`.
        count: Entries touched.
        size: Entries of the touched tensors.
        bytes: What that takes in the file.
        norm: Euclidean norm of everything added, each part by itself; None where one depends on the base.
    """

    name: str
    count: int
    size: int
    bytes: int
    norm: float | None


@dataclass(frozen=True)
class Description:
    """An edit in numbers; `to_dict` gives JSON values.

    Attributes:
        tensors: One row a part and tensor, in the order of the parts.
        parts: One row a part.
        blocks: One row a block, in the order the network runs them.
        tokens: The tokens it adds.
        base_name: The model it was made for.
        base_digest: That model's content, hex SHA-256.
        provenance: How it was made.
        file_bytes: The size of its file.
        count: Entries of parameters touched in all.
        size: Entries of all touched tensors.
        index_bytes: Of all coded positions.
        naive_bytes: Of all positions as int32.
        entropy_bytes: Of all positions at least, each tensor at its own density.
    """

    tensors: tuple[TensorCost, ...]
    parts: tuple[PartSummary, ...]
    blocks: tuple[BlockSum, ...]
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


@method(
    examples=("Example: photopic inspect bear.edit", "For a program: photopic inspect bear.edit --json"),
    view=inspect_view,
    page=False,
)
def inspect(edit: AnyEdit, *, names: Annotated[Sequence[str] | None, Flags()] = None) -> Steps[Report]:
    """Show what an edit file changes, how it was found and what it costs.

    Layers, blocks, the distribution of its values, its bytes, and what a composition was made of. No model is loaded.

    Args:
        edit: An edit file, as photopic locate and photopic compose write it.
        names: What to call it; its words by default.

    Returns:
        The numbers of ``describe``: one row a part and tensor, and in the values the sums, blocks, parts, provenance and file.

    Example:
        >>> inspect(edit).values["density"]  # doctest: +SKIP
        0.18
    """
    yield Event("counting")
    found = as_content(edit)
    numbers = describe(found).to_dict()
    file = {"name": labels([edit], names)[0], "bytes": len(found.content), "sha256": found.digest()}
    rows = tuple(numbers.pop("tensors"))
    return Report("inspect", numbers | {"file": file}, rows)


def describe(edit: AnyEdit) -> Description:
    """Count what an edit touches, what it holds and what it costs.

    Args:
        edit: Any edit, or what is stored of one.

    Returns:
        One row a touched tensor, part and block, and the sums.

    Example:
        >>> describe(load("bear.edit")).density  # doctest: +SKIP
        0.18
    """
    found = as_content(edit)
    held = [rows_of(part, found) for part in found.parts]
    rows = [[_cost(number, found.parts[number], row) for row in each] for number, each in enumerate(held)]
    all_rows = tuple(row for each in rows for row in each)
    positions = touched(found)
    sizes = {name: math.prod(found.base.shapes[name]) for name in positions}
    counts = {name: sizes[name] if where is None else len(where) for name, where in positions.items()}
    return Description(
        tensors=all_rows,
        parts=tuple(_summary(*each) for each in zip(found.parts, rows, held, strict=True)),
        blocks=_blocks([row for row in all_rows if row.changes_weights], counts),
        tokens=found.tokens,
        base_name=found.base.name,
        base_digest=found.base.digest,
        provenance=dict(found.provenance),
        file_bytes=len(found.content),
        count=sum(counts.values()),
        size=sum(sizes.values()),
        index_bytes=sum(row.index_bytes for row in all_rows),
        naive_bytes=sum(row.naive_bytes for row in all_rows),
        entropy_bytes=sum(row.entropy_bytes for row in all_rows),
    )


def _cost(number: int, part: PartContent, row: Row) -> TensorCost:
    size, count = math.prod(row.shape), row.count(changes_weights=part.kind in WEIGHTS)
    has_positions = row.positions is not None
    return TensorCost(
        name=row.name,
        kind=part.kind,
        part=number,
        shape=row.shape,
        count=count,
        density=count / size if has_positions else 1.0,
        index_bytes=row.index_bytes,
        value_bytes=row.value_bytes,
        naive_bytes=_INT32_BYTES * count if has_positions else 0,
        entropy_bytes=indices.entropy_bytes(count, size) if has_positions else 0.0,
        norm=row.norm,
    )


def _summary(part: PartContent, rows: Sequence[TensorCost], held: Sequence[Row]) -> PartSummary:
    return PartSummary(
        kind=part.kind,
        detail=detail_of(part),
        tensors=len(rows),
        count=sum(row.count for row in rows),
        bytes=sum(row.index_bytes + row.value_bytes for row in rows),
        values=summary([each for row in held for each in row.numbers]),
    )


def _blocks(rows: Sequence[TensorCost], counts: Mapping[str, int]) -> tuple[BlockSum, ...]:
    names = sorted({place(row.name)[0] for row in rows}, key=running_order)
    return tuple(_block(name, [row for row in rows if place(row.name)[0] == name], counts) for name in names)


def _block(name: str, rows: Sequence[TensorCost], counts: Mapping[str, int]) -> BlockSum:
    norms = [row.norm for row in rows if row.norm is not None]
    sizes = {row.name: math.prod(row.shape) for row in rows}  # a tensor that two parts touch counts once
    return BlockSum(
        name=name,
        count=sum(counts[each] for each in sizes),
        size=sum(sizes.values()),
        bytes=sum(row.index_bytes + row.value_bytes for row in rows),
        norm=math.hypot(*norms) if len(norms) == len(rows) else None,
    )
