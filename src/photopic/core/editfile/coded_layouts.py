"""How parts with positions, with new tokens and with token ids stand in a file; each is a `Layout` of `layouts`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from photopic.core.editfile import indices
from photopic.core.editfile.container import FLOATS, Data, Described, Entry, expect, fields_are, is_count, is_row
from photopic.core.editfile.indices import LARGEST_SIZE
from photopic.core.editfile.value_codes import LEVELS, Numbers, packed_values, unpacked_values
from photopic.core.errors import EditError, EditFileError

Tensors = list[tuple[str, tuple[int, ...]]]  # name and shape of each touched parameter, by number
Named = dict[str, tuple[Entry, bytes]]
Fields = dict[
    str, Any
]  # of a part by name: arrays of positions and values, `Numbers`, mappings of these, and JSON values
BITS = (32, 16, 8, 2)


class SparseLayout:
    """Entries shut or changed: coded positions one tensor after the other, then the values in the same order."""

    def encode(self, kind: str, part: Fields, tensors: Tensors) -> tuple[Described, Named]:
        numbers = {name: number for number, (name, _) in enumerate(tensors)}
        coded = {}
        for name, positions in part["indices"].items():
            shape = tensors[numbers[name]][1]
            coded[name] = indices.encode(positions, prod(shape), row=row_of(shape))
        rows = [[numbers[name], len(part["indices"][name]), len(code)] for name, code in coded.items()]
        joined = b"".join(coded.values())
        found: Named = {"indices": (Entry("U8", (len(joined),)), joined)}
        described: Described = {"kind": kind, "tensors": rows}
        if kind == "values":  # which stand beside the positions
            described |= {"bits": part["bits"], "delta": part["delta"]}
            packed = packed_values(part["bits"], list(part["values"].values()))
            for (name, entry), data in zip(self._value_entries(described), packed, strict=True):
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
        check_ascending(where, [row[0] for row in part["tensors"]])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        yield "indices", Entry("U8", (sum(row[2] for row in part["tensors"]),))
        if part["kind"] == "values":
            yield from self._value_entries(part)

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, Data]) -> Fields:
        positions, at = {}, 0
        for number, count, length in part["tensors"]:
            name, shape = tensors[number]
            try:
                decoded = indices.decode(data["indices"][at : at + length], prod(shape), row=row_of(shape))
            except EditError as error:
                raise EditFileError(f"indices: {name}: {error}") from None
            if len(decoded) != count:
                raise EditFileError(f"indices: {name}: expected {count} positions, found {len(decoded)}")
            positions[name], at = decoded, at + length
        if part["kind"] == "shut":
            return {"indices": positions}
        values = unpacked_values(part["bits"], positions, data)
        return {"indices": positions, "values": values, "bits": part["bits"], "delta": part["delta"]}

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


class TokenLayout:
    """A new token: one vector a text encoder."""

    def encode(self, kind: str, part: Fields, tensors: Tensors) -> tuple[Described, Named]:
        rows = {component: [row.dtype, row.shape[0]] for component, row in part["rows"].items()}
        found = {f"rows.{name}": (Entry(row.dtype, row.shape), bytes(row.data)) for name, row in part["rows"].items()}
        return {"kind": kind, "token": part["token"], "rows": rows}, found

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        fields_are(part, where, "kind", "rows", "token")
        expect(isinstance(part["token"], str), f"{where}: token", "text", part["token"])
        expect(isinstance(part["rows"], dict), f"{where}: rows", "an object", part["rows"])
        for component, row in part["rows"].items():
            fits = is_row(row, str, int) and row[0] in FLOATS and is_count(row[1])
            expect(fits, f"{where}: rows: {component}", "a floating-point type and a length", row)

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for component, (dtype, length) in part["rows"].items():
            yield f"rows.{component}", Entry(dtype, (length,))

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, Data]) -> Fields:
        rows = {name: Numbers(dtype, (length,), data[f"rows.{name}"]) for name, (dtype, length) in part["rows"].items()}
        return {"token": part["token"], "rows": rows}


class ResidualLayout:
    """A residual on words: for each text encoder the token ids of the words and one vector an id."""

    def encode(self, kind: str, part: Fields, tensors: Tensors) -> tuple[Described, Named]:
        rows, found = [], {}
        for name, residual in part["residuals"].items():
            rows.append([name, list(part["ids"][name]), residual.dtype, residual.shape[1]])
            found[f"tokens.{name}"] = (Entry(residual.dtype, residual.shape), bytes(residual.data))
        return {"kind": kind, "tokens": rows, "words": part["words"]}, found

    def check(self, where: str, part: Described, tensors: Tensors) -> None:
        fields_are(part, where, "kind", "tokens", "words")
        expect(isinstance(part["words"], str), f"{where}: words", "text", part["words"])
        expect(isinstance(part["tokens"], list), f"{where}: tokens", "a list", part["tokens"])
        for row in part["tokens"]:
            fits = is_row(row, str, list, str, int) and all(map(is_count, row[1])) and row[2] in FLOATS
            fits = fits and is_count(row[3]) and len(row[1]) * row[3] <= LARGEST_SIZE
            expect(fits, f"{where}: tokens", "rows of text encoder, token ids, floating-point type, length", row)
        check_ascending(f"{where}: tokens", [row[0] for row in part["tokens"]])

    def entries(self, part: Described) -> Iterator[tuple[str, Entry]]:
        for name, ids, dtype, length in part["tokens"]:
            yield f"tokens.{name}", Entry(dtype, (len(ids), length))

    def decode(self, part: Described, tensors: Tensors, data: Mapping[str, Data]) -> Fields:
        residuals = {
            name: Numbers(dtype, (len(ids), length), data[f"tokens.{name}"])
            for name, ids, dtype, length in part["tokens"]
        }
        return {
            "words": part["words"],
            "ids": {name: tuple(ids) for name, ids, _, _ in part["tokens"]},
            "residuals": residuals,
        }


def row_of(shape: tuple[int, ...]) -> int | None:
    """The weights of one output of a layer, so that positions that crowd in some of them cost less."""
    return prod(shape[1:]) if len(shape) > 1 else None


def check_ascending(where: str, places: list[Any]) -> None:
    """Each name or number once, in order, so that one edit has one file."""
    expect(places == sorted(set(places)), where, "tensors sorted and once each", places)
