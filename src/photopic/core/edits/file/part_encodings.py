"""How each kind of part stands in a file: what the metadata says of it, which tensors that asks for, and both ways between.

Sparse parts code their positions and values (`SparseForm`), a new token keeps its rows (`TokenForm`), a token residual its ids and
vectors (`ResidualForm`), every other kind is a few plain tensors by name (`DenseForm`). `FORMS` has one by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, Protocol

from torch import Tensor

from photopic.core.edits.activations import InitialNoise, Insertion, SteeringVector
from photopic.core.edits.adapter_hooks import AdapterPlacement, branch_of, described, is_described
from photopic.core.edits.adapters import Adapters, ClassifierHead
from photopic.core.edits.dense import DenseDelta, LowRankDelta
from photopic.core.edits.file.coded_parts import Named, ResidualForm, SparseForm, Tensors, TokenForm, check_ascending
from photopic.core.edits.file.container import (
    DTYPES,
    MOST_AXES,
    NAMES,
    Data,
    Described,
    Entry,
    expect,
    fields_are,
    is_count,
    is_row,
)
from photopic.core.edits.file.indices import LARGEST_SIZE
from photopic.core.edits.file.value_codes import raw, vector
from photopic.core.errors import EditFileError


class Form(Protocol):
    """One way to keep parts in a file; the names of its tensors begin with the number of the part, which the file adds."""

    def encode(self, part: Any, tensors: Tensors) -> tuple[Described, Named]:
        """What the metadata says of a part, and its tensors."""

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        """Check everything the metadata claims of a part, before any of its tensors is read."""

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        """The tensors that the checked metadata of a part asks for."""

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, Data]) -> Any:
        """The part again."""


@dataclass(frozen=True)
class DenseForm:
    """Mappings from a name to a plain tensor, and options that are JSON values.

    Attributes:
        make: The kind, from its fields by name.
        mappings: Fields that map names to tensors.
        options: Other fields, with what they must be.
        numbered: Whether names are those of touched parameters, kept as their numbers.
    """

    make: Callable[..., Any]
    mappings: tuple[str, ...]
    options: Mapping[str, Callable[[Any], bool]]
    numbered: bool = False

    def encode(self, part: Any, tensors: Tensors) -> tuple[Described, Named]:
        numbers = {name: number for number, (name, _) in enumerate(tensors)}
        described: Described = {"kind": part.kind} | {name: _plain(getattr(part, name)) for name in self.options}
        found: Named = {}
        for mapping in self.mappings:
            rows = []
            for name, tensor in _as_mapping(mapping, getattr(part, mapping)).items():
                place = numbers[name] if self.numbered else name
                rows.append([place, NAMES[tensor.dtype], list(tensor.shape)])
                found[f"{mapping}.{place}"] = (Entry(NAMES[tensor.dtype], tuple(tensor.shape)), raw(tensor))
            described[mapping] = rows
        return described, found

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
                fits = is_row(row, int if self.numbered else str, str, list) and row[1] in DTYPES
                fits = fits and len(row[2]) <= MOST_AXES and all(map(is_count, row[2])) and prod(row[2]) <= LARGEST_SIZE
                fits = fits and (not self.numbered or 0 <= row[0] < len(tensors))
                expect(fits, f"{where}: {mapping}", "rows of tensor, floating-point type, shape", row)
            check_ascending(f"{where}: {mapping}", [row[0] for row in rows])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for mapping in self.mappings:
            for place, dtype, shape in part[mapping]:
                yield f"{mapping}.{place}", Entry(dtype, tuple(shape))

    def decode(self, part_says: Described, tensors: Tensors, data: Mapping[str, Data]) -> Any:
        given: dict[str, Any] = {name: part_says[name] for name in self.options}
        for mapping in self.mappings:
            given[mapping] = {
                (tensors[place][0] if self.numbered else place): vector(data[f"{mapping}.{place}"], dtype).view(shape)
                for place, dtype, shape in part_says[mapping]
            }
        part = self.make(**given)
        for name in self.options:
            if _plain(getattr(part, name)) != part_says[name]:
                raise EditFileError(f"{name}: expected one for each tensor, found {part_says[name]}")
        return part


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


def _tuner(branches: Mapping[str, Described], tensors: Mapping[str, Tensor], scale: float) -> Adapters:
    return Adapters({name: branch_of(each) for name, each in branches.items()}, tensors, scale)


def _head(labels: list[str], weight: Mapping[str, Tensor], bias: Mapping[str, Tensor]) -> ClassifierHead:
    if list(weight) != ["weight"] or list(bias) != ["bias"]:
        raise EditFileError(f"head: expected one tensor as weight and one as bias, found {[*weight, *bias]}")
    return ClassifierHead(tuple(labels), weight["weight"], bias["bias"])


def _noise(noise: Mapping[str, Tensor]) -> InitialNoise:
    if list(noise) != ["noise"]:
        raise EditFileError(f"noise: expected one tensor of that name, found {', '.join(noise) or 'none'}")
    return InitialNoise(noise["noise"])


FORMS: dict[str, Form] = {
    "shut": SparseForm(),
    "values": SparseForm(),
    "token": TokenForm(),
    "low_rank": DenseForm(LowRankDelta, ("down", "up"), {"scales": _is_scales}, numbered=True),
    "delta": DenseForm(DenseDelta, ("deltas",), {}, numbered=True),
    "residual": ResidualForm(),
    "insertion": DenseForm(Insertion, ("down", "up"), {"activation": _is_text, "scale": _is_number}),
    "direction": DenseForm(SteeringVector, ("vectors",), {}),
    "noise": DenseForm(_noise, ("noise",), {}),
    "tuner": DenseForm(_tuner, ("tensors",), {"branches": _is_branches, "scale": _is_number}),
    "head": DenseForm(_head, ("weight", "bias"), {"labels": _is_labels}),
}


def _as_mapping(field: str, value: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {field: value} if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return described(value) if isinstance(value, AdapterPlacement) else value
