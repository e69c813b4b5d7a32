"""How each kind of part stands in a file: what the metadata says of it, which tensors that asks for, and both ways between.

Sparse parts code their positions and values (`SparseForm`), a new token keeps its rows (`TokenForm`), a token residual its ids and
vectors (`ResidualForm`), every other kind is a few plain tensors by name (`DenseForm`). `FORMS` has one by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, Protocol

import torch
from torch import Tensor

from photopic.core.edits.activations import InitialNoise, Insertion, SteeringVector, TokenResidual
from photopic.core.edits.adapter_hooks import AdapterPlacement, branch_of, described, is_described
from photopic.core.edits.adapters import Adapters, ClassifierHead
from photopic.core.edits.dense import DenseDelta, LowRankDelta
from photopic.core.edits.file import indices
from photopic.core.edits.file.container import (
    DTYPES,
    MOST_AXES,
    NAMES,
    Described,
    Entry,
    expect,
    fields_are,
    is_count,
    is_row,
)
from photopic.core.edits.file.indices import LARGEST_SIZE
from photopic.core.edits.file.value_codes import packed_values, raw, unpacked_values, vector
from photopic.core.edits.sparse import LEVELS, SparseWeights, ZeroedWeights
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError, EditFileError

Tensors = list[tuple[str, tuple[int, ...]]]  # name and shape of each touched parameter, by number
Named = dict[str, tuple[Entry, bytes]]
BITS = (32, 16, 8, 2)


class Form(Protocol):
    """One way to keep parts in a file; the names of its tensors begin with the number of the part, which the file adds."""

    def encode(self, part: Any, tensors: Tensors) -> tuple[Described, Named]:
        """What the metadata says of a part, and its tensors."""

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        """Check everything the metadata claims of a part, before any of its tensors is read."""

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        """The tensors that the checked metadata of a part asks for."""

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, bytes]) -> Any:
        """The part again."""


class SparseForm:
    """`ZeroedWeights` and `SparseWeights`: coded positions one tensor after the other, then the values in the same order."""

    def encode(self, part: ZeroedWeights | SparseWeights, tensors: Tensors) -> tuple[Described, Named]:
        numbers = {name: number for number, (name, _) in enumerate(tensors)}
        coded = {
            name: indices.encode(
                positions.numpy(), prod(tensors[numbers[name]][1]), row=_row(tensors[numbers[name]][1])
            )
            for name, positions in part.indices.items()
        }
        rows = [[numbers[name], len(part.indices[name]), len(code)] for name, code in coded.items()]
        joined = b"".join(coded.values())
        found: Named = {"indices": (Entry("U8", (len(joined),)), joined)}
        described: Described = {"kind": part.kind, "tensors": rows}
        if isinstance(part, SparseWeights):
            described |= {"bits": part.bits, "delta": part.delta}
            for (name, entry), data in zip(self._value_entries(described), packed_values(part), strict=True):
                found[name] = (entry, data)
        return described, found

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        has_values = part["kind"] == "values"
        fields_are(part, where, *(["bits", "delta"] if has_values else []), "kind", "tensors")
        if has_values:
            is_known = type(part["bits"]) is int and part["bits"] in BITS
            expect(is_known, f"{where}: bits", "32, 16, 8 or 2", part["bits"])
            expect(type(part["delta"]) is bool, f"{where}: delta", "true or false", part["delta"])
        expect(isinstance(part["tensors"], list), f"{where}: tensors", "a list", part["tensors"])
        for row in part["tensors"]:
            fits = is_row(row, int, int, int) and all(is_count(value) for value in row) and row[0] < len(tensors)
            expect(fits, f"{where}: tensors", "rows of tensor number, count, bytes", row)
            name, shape = tensors[row[0]]
            expect(0 < row[1] <= prod(shape), f"{where}: {name}", f"between 1 and {prod(shape)} positions", row[1])
        _check_ascending(where, [row[0] for row in part["tensors"]])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        yield "indices", Entry("U8", (sum(row[2] for row in part["tensors"]),))
        if part["kind"] == "values":
            yield from self._value_entries(part)

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, bytes]) -> ZeroedWeights | SparseWeights:
        positions, at = {}, 0
        for number, count, length in part["tensors"]:
            name, shape = tensors[number]
            try:
                decoded = indices.decode(data["indices"][at : at + length], prod(shape), row=_row(shape))
            except EditError as error:
                raise EditFileError(f"indices: {name}: {error}") from None
            if len(decoded) != count:
                raise EditFileError(f"indices: {name}: expected {count} positions, found {len(decoded)}")
            positions[name], at = torch.from_numpy(decoded), at + length
        if part["kind"] == "shut":
            return ZeroedWeights(positions)
        return SparseWeights(positions, unpacked_values(part["bits"], positions, data), part["bits"], part["delta"])

    def _value_entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        counts = [row[1] for row in part["tensors"]]
        if part["bits"] == 2:
            yield "levels", Entry("F32", (len(counts), LEVELS))
            yield "values", Entry("U8", (sum(-(-count // 4) for count in counts),))
        elif part["bits"] == 8:
            yield "steps", Entry("F32", (len(counts),))
            yield "values", Entry("I8", (sum(counts),))
        else:
            yield "values", Entry("F32" if part["bits"] == 32 else "F16", (sum(counts),))


class TokenForm:
    """`TokenEmbedding`: one vector a text encoder."""

    def encode(self, part: TokenEmbedding, tensors: Tensors) -> tuple[Described, Named]:
        rows = {component: [NAMES[row.dtype], len(row)] for component, row in part.rows.items()}
        found = {f"rows.{name}": (Entry(NAMES[row.dtype], (len(row),)), raw(row)) for name, row in part.rows.items()}
        return {"kind": "token", "token": part.token, "rows": rows}, found

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        fields_are(part, where, "kind", "rows", "token")
        expect(isinstance(part["token"], str), f"{where}: token", "text", part["token"])
        expect(isinstance(part["rows"], dict), f"{where}: rows", "an object", part["rows"])
        for component, row in part["rows"].items():
            fits = is_row(row, str, int) and row[0] in DTYPES and is_count(row[1])
            expect(fits, f"{where}: rows: {component}", "a floating-point type and a length", row)

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for component, (dtype, length) in part["rows"].items():
            yield f"rows.{component}", Entry(dtype, (length,))

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, bytes]) -> TokenEmbedding:
        rows = {name: vector(data[f"rows.{name}"], dtype) for name, (dtype, _) in part["rows"].items()}
        return TokenEmbedding(part["token"], rows)


class ResidualForm:
    """`TokenResidual`: for each text encoder the token ids of the words and one vector an id."""

    def encode(self, part: TokenResidual, tensors: Tensors) -> tuple[Described, Named]:
        rows, found = [], {}
        for name, residual in part.residuals.items():
            rows.append([name, list(part.ids[name]), NAMES[residual.dtype], residual.shape[1]])
            found[f"tokens.{name}"] = (Entry(NAMES[residual.dtype], tuple(residual.shape)), raw(residual))
        return {"kind": "residual", "tokens": rows, "words": part.words}, found

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        fields_are(part, where, "kind", "tokens", "words")
        expect(isinstance(part["words"], str), f"{where}: words", "text", part["words"])
        expect(isinstance(part["tokens"], list), f"{where}: tokens", "a list", part["tokens"])
        for row in part["tokens"]:
            fits = is_row(row, str, list, str, int) and all(map(is_count, row[1])) and row[2] in DTYPES
            fits = fits and is_count(row[3]) and len(row[1]) * row[3] <= LARGEST_SIZE
            expect(fits, f"{where}: tokens", "rows of text encoder, token ids, floating-point type, length", row)
        _check_ascending(f"{where}: tokens", [row[0] for row in part["tokens"]])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for name, ids, dtype, length in part["tokens"]:
            yield f"tokens.{name}", Entry(dtype, (len(ids), length))

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, bytes]) -> TokenResidual:
        ids = {name: tuple(each) for name, each, _, _ in part["tokens"]}
        residuals = {
            name: vector(data[f"tokens.{name}"], dtype).view(len(each), length)
            for name, each, dtype, length in part["tokens"]
        }
        return TokenResidual(part["words"], ids, residuals)


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
            _check_ascending(f"{where}: {mapping}", [row[0] for row in rows])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for mapping in self.mappings:
            for place, dtype, shape in part[mapping]:
                yield f"{mapping}.{place}", Entry(dtype, tuple(shape))

    def decode(self, part_says: Described, tensors: Tensors, data: Mapping[str, bytes]) -> Any:
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


def _row(shape: tuple[int, ...]) -> int | None:
    """The weights of one output of a layer, so that positions that crowd in some of them cost less."""
    return prod(shape[1:]) if len(shape) > 1 else None


def _as_mapping(field: str, value: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {field: value} if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return described(value) if isinstance(value, AdapterPlacement) else value


def _check_ascending(where: str, places: list[Any]) -> None:
    expect(places == sorted(set(places)), where, "tensors sorted and once each", places)
