"""How each kind of part stands in a file: what the metadata says of it, which tensors that asks for, and both ways between.

A part is its fields by name, with arrays in the place of tensors, so that a file can be read and looked at without torch. Sparse
parts code their positions and values (`SparseLayout`), a new token keeps its rows (`TokenLayout`), a token residual its ids and
vectors (`ResidualLayout`), every other kind is a few plain tensors by name (`DenseLayout`). `LAYOUTS` has one by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import Any, Protocol

from photopic.core.editfile.coded_layouts import (
    Fields,
    Named,
    ResidualLayout,
    SparseLayout,
    Tensors,
    TokenLayout,
    check_ascending,
)
from photopic.core.editfile.container import (
    FLOATS,
    MOST_AXES,
    Data,
    Described,
    Entry,
    expect,
    fields_are,
    is_count,
    is_row,
)
from photopic.core.editfile.indices import LARGEST_SIZE
from photopic.core.editfile.placement import AdapterPlacement, branch_of, described, is_described
from photopic.core.editfile.value_codes import Numbers
from photopic.core.errors import EditFileError


class Layout(Protocol):
    """One way to keep parts in a file; the names of its tensors begin with the number of the part, which the file adds."""

    def encode(self, kind: str, part: Fields, tensors: Tensors) -> tuple[Described, Named]:
        """What the metadata says of a part, and its tensors."""

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        """Check everything the metadata claims of a part, before any of its tensors is read."""

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        """The tensors that the checked metadata of a part asks for."""

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, Data]) -> Fields:
        """The fields of the part again."""


@dataclass(frozen=True)
class DenseLayout:
    """Mappings from a name to a plain tensor, and options that are JSON values.

    Attributes:
        mappings: Fields that map names to tensors.
        options: Other fields, with what they must be.
        numbered: Whether names are those of touched parameters, kept as their numbers.
        single: Whether each mapping is one tensor, called like the field.
    """

    mappings: tuple[str, ...]
    options: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    numbered: bool = False
    single: bool = False

    def encode(self, kind: str, part: Fields, tensors: Tensors) -> tuple[Described, Named]:
        numbers = {name: number for number, (name, _) in enumerate(tensors)}
        says: Described = {"kind": kind} | {name: plain(part[name]) for name in self.options}
        found: Named = {}
        for mapping in self.mappings:
            rows = []
            for name, tensor in ({mapping: part[mapping]} if self.single else part[mapping]).items():
                place = numbers[name] if self.numbered else name
                rows.append([place, tensor.dtype, list(tensor.shape)])
                found[f"{mapping}.{place}"] = (Entry(tensor.dtype, tensor.shape), tensor.data)
            says[mapping] = rows
        return says, found

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        fields_are(part, where, *sorted(("kind", *self.mappings, *self.options)))
        for name, holds in self.options.items():
            expect(
                holds(part[name]),
                f"{where}: {name}",
                f"what belongs there in a part of kind {part['kind']}",
                part[name],
            )
        for mapping in self.mappings:
            rows = part[mapping]
            expect(isinstance(rows, list), f"{where}: {mapping}", "a list", rows)
            for row in rows:
                fits = is_row(row, int if self.numbered else str, str, list) and row[1] in FLOATS
                fits = fits and len(row[2]) <= MOST_AXES and all(map(is_count, row[2])) and prod(row[2]) <= LARGEST_SIZE
                fits = fits and (not self.numbered or 0 <= row[0] < len(tensors))
                expect(fits, f"{where}: {mapping}", "rows of tensor, floating-point type, shape", row)
            check_ascending(f"{where}: {mapping}", [row[0] for row in rows])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for mapping in self.mappings:
            for place, dtype, shape in part[mapping]:
                yield f"{mapping}.{place}", Entry(dtype, tuple(shape))

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, Data]) -> Fields:
        given: Fields = {name: tuple(each) if isinstance(each := part[name], list) else each for name in self.options}
        if "branches" in given:
            given["branches"] = {name: branch_of(each) for name, each in given["branches"].items()}
        for mapping in self.mappings:
            given[mapping] = {
                (tensors[place][0] if self.numbered else place): Numbers(
                    dtype, tuple(shape), data[f"{mapping}.{place}"]
                )
                for place, dtype, shape in part[mapping]
            }
            if self.single:
                given[mapping] = _only(mapping, given[mapping])
        return given


def plain(value: Any) -> Any:
    """An option of a part as JSON values."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return described(value) if isinstance(value, AdapterPlacement) else value


def _only(mapping: str, found: Mapping[str, Numbers]) -> Numbers:
    if list(found) != [mapping]:
        raise EditFileError(f"{mapping}: expected one tensor of that name, found {', '.join(found) or 'none'}")
    return found[mapping]


def _is_number(value: Any) -> bool:
    return type(value) is float and isfinite(value)


def _is_scales(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_branches(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_described, value.values()))


def _is_labels(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


LAYOUTS: dict[str, Layout] = {
    "shut": SparseLayout(),
    "values": SparseLayout(),
    "token": TokenLayout(),
    "low_rank": DenseLayout(("down", "up"), {"scales": _is_scales}, numbered=True),
    "delta": DenseLayout(("deltas",), numbered=True),
    "residual": ResidualLayout(),
    "insertion": DenseLayout(("down", "up"), {"activation": _is_text, "scale": _is_number}),
    "direction": DenseLayout(("vectors",)),
    "noise": DenseLayout(("noise",), single=True),
    "tuner": DenseLayout(("tensors",), {"branches": _is_branches, "scale": _is_number}),
    "head": DenseLayout(("weight", "bias"), {"labels": _is_labels}, single=True),
}
