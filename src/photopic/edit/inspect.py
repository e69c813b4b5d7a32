"""What an edit touches, what it holds and what it costs: the numbers behind ``photopic inspect``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from torch import Size, Tensor

from photopic.core.config import Flags
from photopic.core.edits import Edit, Part
from photopic.core.edits.file import indices, to_bytes
from photopic.core.edits.file.part_encodings import FORMS
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.nn.layer_names import place, running_order
from photopic.core.results import Report
from photopic.edit._common import labels
from photopic.edit._inspect_view import inspect_view
from photopic.edit._summaries import ValueSummary, summary

_INT32_BYTES = 4
_WEIGHTS = ("shut", "values", "low_rank", "delta")  # the kinds that change parameters; the others add something


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
        return self.kind in _WEIGHTS


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
def inspect(edit: Edit, *, names: Annotated[Sequence[str] | None, Flags()] = None) -> Steps[Report]:
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
    numbers = describe(edit).to_dict()
    content = to_bytes(edit)
    file = {"name": labels([edit], names)[0], "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rows = tuple(numbers.pop("tensors"))
    return Report("inspect", numbers | {"file": file}, rows)


def describe(edit: Edit) -> Description:
    """Count what an edit touches, what it holds and what it costs.

    Args:
        edit: Any edit.

    Returns:
        One row a touched tensor, part and block, and the sums.

    Example:
        >>> describe(load("bear.edit")).density  # doctest: +SKIP
        0.18
    """
    rows = tuple(row for number, part in enumerate(edit.parts) for row in _rows(number, part, edit))
    sizes = {name: Size(shape).numel() for name, shape in edit.shapes.items()}
    counts = {name: sizes[name] if where is None else len(where) for name, where in edit.touched().items()}
    return Description(
        tensors=rows,
        parts=tuple(_summary(part, [row for row in rows if row.part == n]) for n, part in enumerate(edit.parts)),
        blocks=_blocks([row for row in rows if row.changes_weights], counts),
        tokens=edit.tokens,
        base_name=edit.base.name,
        base_digest=edit.base.digest,
        provenance=dict(edit.provenance),
        file_bytes=len(to_bytes(edit)),
        count=sum(counts.values()),
        size=sum(sizes.values()),
        index_bytes=sum(row.index_bytes for row in rows),
        naive_bytes=sum(row.naive_bytes for row in rows),
        entropy_bytes=sum(row.entropy_bytes for row in rows),
    )


def _rows(number: int, part: Part, edit: Edit) -> list[TensorCost]:
    at = {name: part.change(name).indices for name in part.names()}  # None: every entry
    coded: dict[str, int] = {}
    if any(positions is not None for positions in at.values()):
        shapes = [(name, tuple(edit.base.shapes[name])) for name in at]
        described, _ = FORMS[part.kind].encode(part, shapes)  # as in the file: rows of number, count, bytes
        coded = {name: row[2] for name, row in zip(at, described["tensors"], strict=True)}
    held = part.stored()
    return [_row(number, part, edit, name, held.get(name, []), coded) for name in held or at]


def _row(
    number: int, part: Part, edit: Edit, name: str, held: Sequence[Tensor], coded: Mapping[str, int]
) -> TensorCost:
    shape = tuple(edit.base.shapes[name]) if name in part.names() else tuple(held[-1].shape)
    size = Size(shape).numel()
    count = size if name in part.names() else sum(each.numel() for each in held)
    if name in coded:
        positions = part.change(name).indices
        assert positions is not None
        count = len(positions)
    return TensorCost(
        name=name,
        kind=part.kind,
        part=number,
        shape=shape,
        count=count,
        density=count / size if name in coded else 1.0,
        index_bytes=coded.get(name, 0),
        value_bytes=part.stored_bytes(name) if held else 0,
        naive_bytes=_INT32_BYTES * count if name in coded else 0,
        entropy_bytes=indices.entropy_bytes(count, size) if name in coded else 0.0,
        norm=part.norm(name),
    )


def _summary(part: Part, rows: Sequence[TensorCost]) -> PartSummary:
    return PartSummary(
        kind=part.kind,
        detail=part.detail(),
        tensors=len(rows),
        count=sum(row.count for row in rows),
        bytes=sum(row.index_bytes + row.value_bytes for row in rows),
        values=summary([each for tensors in part.stored().values() for each in tensors]),
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
