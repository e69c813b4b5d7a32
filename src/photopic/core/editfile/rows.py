"""What a part of an edit holds, tensor by tensor: the entries it touches, its numbers, what they take in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from photopic.core.editfile import indices
from photopic.core.editfile.coded_layouts import row_of
from photopic.core.editfile.content import EditContent, PartContent
from photopic.core.editfile.value_codes import Numbers
from photopic.core.errors import EditFileError

Array = np.ndarray
WEIGHTS = ("shut", "values", "low_rank", "delta")  # the kinds that change parameters; the others add something
_SCALE_BYTES = {32: 0, 16: 0, 8: 4, 2: 16}  # a tensor: one float32 step, four float32 levels


@dataclass(frozen=True, eq=False)
class Row:
    """What one part does to one tensor, module or text encoder.

    Attributes:
        name: ``<component>.<parameter>`` or ``<component>.<module>``; of words ``<component>: <words>``.
        shape: Of the tensor, or of what is added.
        positions: The entries it touches; None where it touches all, or none of a parameter.
        numbers: What it holds there beside positions.
        index_bytes: What the coded positions take in the file.
        value_bytes: What the numbers take in the file.
        norm: Euclidean norm of what is added to the tensor at weight 1; None where that depends on the base.
    """

    name: str
    shape: tuple[int, ...]
    positions: Array | None
    numbers: tuple[Array, ...]
    index_bytes: int
    value_bytes: int
    norm: float | None

    def count(self, *, changes_weights: bool) -> int:
        """Entries touched, or added."""
        if self.positions is not None:
            return len(self.positions)
        return math.prod(self.shape) if changes_weights else sum(each.size for each in self.numbers)


def rows_of(part: PartContent, edit: EditContent) -> list[Row]:
    """One row a tensor, module or text encoder, by name.

    Args:
        part: One of the parts of the edit.
        edit: The edit, which knows the shapes of its base.

    Raises:
        EditFileError: If a number is not finite.
    """
    if part.kind in ("shut", "values"):
        return [_sparse_row(name, part, edit.base.shapes[name]) for name in part.fields["indices"]]
    return [_dense_row(name, part, held, edit) for name, held in sorted(held_by(part).items())]


def held_by(part: PartContent) -> dict[str, list[Numbers]]:
    """The tensors that a part without positions holds, by the row of a table."""
    given = part.fields
    if part.kind in ("token", "residual"):
        words, vectors = (
            (given["token"], given["rows"]) if part.kind == "token" else (given["words"], given["residuals"])
        )
        return {f"{component}: {words}": [each] for component, each in vectors.items()}
    if part.kind == "noise":
        return {"start noise": [given["noise"]]}
    if part.kind == "head":
        return {"head": [given["bias"], given["weight"]]}
    if part.kind == "tuner":  # <module>/<role>
        return {
            module: [each for name, each in given["tensors"].items() if name.rpartition("/")[0] == module]
            for module in given["branches"]
        }
    mappings = [given[name] for name in ("down", "up", "deltas", "vectors") if name in given]
    return {name: [each[name] for each in mappings] for name in mappings[0]}


def _sparse_row(name: str, part: PartContent, shape: tuple[int, ...]) -> Row:
    positions, bits = part.fields["indices"][name], part.fields.get("bits")
    coded = indices.encode(positions, math.prod(shape), row=row_of(tuple(shape)))
    if bits is None:
        return Row(name, tuple(shape), positions, (), len(coded), 0, None)
    values = _finite(name, part.fields["values"][name])
    value_bytes = -(-len(positions) * bits // 8) + _SCALE_BYTES[bits]
    norm = float(np.linalg.norm(values.astype(np.float64))) if part.fields["delta"] else None
    return Row(name, tuple(shape), positions, (values,), len(coded), value_bytes, norm)


def _dense_row(name: str, part: PartContent, held: Sequence[Numbers], edit: EditContent) -> Row:
    numbers = tuple(_finite(name, each.array()) for each in held)
    shape = tuple(edit.base.shapes[name]) if part.kind in WEIGHTS else held[-1].shape
    return Row(name, shape, None, numbers, 0, sum(len(each.data) for each in held), _norm(part, name, numbers))


def _norm(part: PartContent, name: str, numbers: Sequence[Array]) -> float | None:
    if part.kind == "delta":
        return float(np.linalg.norm(numbers[0].astype(np.float64)))
    if part.kind != "low_rank":
        return None
    # ||up down||^2 = trace(up'up down down'), without the product itself
    down, up = (each.astype(np.float64) for each in numbers)  # (rank, in), (out, rank)
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return abs(part.fields["scales"][name]) * math.sqrt(max(0.0, square))


def _finite(name: str, values: Array) -> Array:
    if not np.isfinite(values).all():
        raise EditFileError(f"{name}: expected finite values, found NaN or infinity")
    return values


def touched(edit: EditContent) -> dict[str, Array | None]:
    """Every touched position by tensor name, strictly increasing; None where a part changes the whole tensor."""
    gathered: dict[str, list[Array | None]] = {}
    for part in edit.parts:
        for name in names_of(part):
            gathered.setdefault(name, []).append(part.fields["indices"][name] if "indices" in part.fields else None)
    return {name: _union(gathered[name]) for name in sorted(gathered)}


def names_of(part: PartContent) -> tuple[str, ...]:
    """The parameters that a part writes to."""
    fields = {"shut": "indices", "values": "indices", "low_rank": "up", "delta": "deltas"}
    return tuple(part.fields[fields[part.kind]]) if part.kind in fields else ()


def _union(sets: Sequence[Array | None]) -> Array | None:
    known = [each for each in sets if each is not None]
    return None if len(known) < len(sets) else union(known)


def union(sets: Sequence[Array]) -> Array:
    """The sorted union of sets of positions, each sorted.

    Example:
        >>> union([np.array([1, 4]), np.array([0, 4])])
        array([0, 1, 4])
    """
    # of one there is nothing to sort, and numpy's own imports more of numpy
    return sets[0] if len(sets) == 1 else np.unique(np.concatenate([*sets, np.zeros(0, np.int64)]))


def detail_of(part: PartContent) -> str:
    """What is particular to a part, such as its precision or rank, in words."""
    given = part.fields
    details: Mapping[str, Any] = {
        "values": lambda: f"{given['bits']} bits, {'added' if given['delta'] else 'set'}",
        "low_rank": lambda: _ranks(given["down"]),
        "insertion": lambda: f"{_ranks(given['down'])}, {given['activation']}, scale {given['scale']:g}",
        "token": lambda: given["token"],
        "residual": lambda: given["words"],
        "tuner": lambda: "; ".join(
            sorted({f"{each.kind}, scaled by {each.scaling}" for each in given["branches"].values()})
        ),
        "head": lambda: f"{len(given['labels'])} classes",
    }
    return str(details[part.kind]()) if part.kind in details else ""


def _ranks(down: Mapping[str, Numbers]) -> str:
    """Ranks in words: ``rank 4`` or ``rank 1 to 8``."""
    found = [each.shape[0] for each in down.values()]
    low, high = min(found), max(found)
    return f"rank {low}" if low == high else f"rank {low} to {high}"
