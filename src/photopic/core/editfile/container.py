"""The container of an edit file: header, places of the tensors, and the checks that come before any of them is read."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from photopic.core.editfile.indices import LARGEST_SIZE
from photopic.core.errors import EditFileError

Described = dict[str, Any]  # what the metadata says of a part
Data = bytes | bytearray | memoryview  # what an entry of the file holds
FLOATS = ("F32", "F16", "BF16")  # what the numbers of a part may be
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1}
LARGEST_HEADER = 100_000_000  # the limit of the safetensors format
MOST_AXES = 8
_BASE64 = "[A-Za-z0-9+/]"  # without padding
_SKETCH = re.compile(f"({_BASE64}{{4}})*")  # values of 24 bits
_MODEL_SKETCH = re.compile(rf"({_BASE64}{{8}}\.{_BASE64}{{8}}\.{_SKETCH.pattern})?")
DIGEST_BYTES, CHECKSUM_BYTES = 32, 12


@dataclass(frozen=True)
class Entry:
    """One tensor in the file: its safetensors type and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes its data takes."""
        return _ITEM_BYTES[self.dtype] * prod(self.shape)


def in_order(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Widest type first, so that each tensor is aligned, then by name: the order of safetensors itself."""
    return dict(sorted(entries.items(), key=lambda item: (-_ITEM_BYTES[item[1].dtype], item[0])))


def places(ordered: Mapping[str, Entry]) -> dict[str, tuple[Entry, int, int]]:
    """Where the data of each tensor starts and ends, without holes."""
    found, at = {}, 0
    for name, entry in ordered.items():
        found[name] = (entry, at, at + entry.size_bytes)
        at += entry.size_bytes
    return found


def header(metadata: str, ordered: Mapping[str, Entry]) -> bytes:
    """The safetensors header, padded with spaces to whole words of 8 bytes."""
    content: dict[str, Any] = {"__metadata__": {"photopic": metadata}}
    for name, (entry, start, end) in places(ordered).items():
        content[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def split(content: bytes) -> tuple[dict[str, Any], str, memoryview]:
    """The header's tensors, the metadata text and the data, of which nothing is copied."""
    if len(content) < 8:
        raise EditFileError(f"expected an edit file, found only {len(content)} bytes")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, LARGEST_HEADER):
        raise EditFileError(
            f"expected a header of at most {len(content) - 8} bytes, found a length of {length}; not an edit, or cut off"
        )
    found = parse_json(content[8 : 8 + length], "header")
    metadata = found.pop("__metadata__", None) if isinstance(found, dict) else None
    if not isinstance(metadata, dict) or list(metadata) != ["photopic"] or not isinstance(metadata["photopic"], str):
        raise EditFileError(
            "expected a safetensors file with metadata under the one key photopic, found none; not a photopic edit"
        )
    return found, metadata["photopic"], memoryview(content)[8 + length :]


def parse(text: str) -> dict[str, Any]:
    """The metadata, as yet unchecked."""
    metadata = parse_json(text, "metadata")
    if not isinstance(metadata, dict):
        raise EditFileError(f"metadata: expected an object, found {type(metadata).__name__}")
    return metadata


def parse_json(text: str | bytes, what: str) -> Any:
    """JSON, with every failure of the parser as ours."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EditFileError(f"{what}: expected JSON, found something else ({error})") from None


def check_metadata(metadata: dict[str, Any]) -> None:
    """Check types and bounds of everything the metadata claims but what its parts say.

    Raises:
        EditFileError: Names the field, what was expected and what was found.
    """
    fields_are(metadata, "metadata", "base", "checksum", "format", "halves", "parts", "provenance", "tensors")
    expect(is_row(metadata["base"], str, str, str), "base", "name, digest and sketch", metadata["base"])
    for key, value, size in (
        ("base: digest", metadata["base"][1], DIGEST_BYTES),
        ("checksum", metadata["checksum"], CHECKSUM_BYTES),
    ):
        found = from_base64(value) if isinstance(value, str) else b""
        expect(len(found) == size and base64_of(found) == value, key, f"{size} bytes in base64", value)
    base_sketch = metadata["base"][2]
    expect(
        bool(_MODEL_SKETCH.fullmatch(base_sketch)), "base: sketch", "structure, dtypes and sampled values", base_sketch
    )
    expect(isinstance(metadata["provenance"], dict), "provenance", "an object", metadata["provenance"])
    expect(isinstance(metadata["tensors"], list), "tensors", "a list", metadata["tensors"])
    for row in metadata["tensors"]:
        expect(is_row(row, str, list, str), "tensors", "rows of name, shape, sketch", row)
        expect(bool(_SKETCH.fullmatch(row[2])), f"tensors: {row[0]}", "a sketch of sampled values", row[2])
        fits = len(row[1]) <= MOST_AXES and all(map(is_count, row[1])) and prod(row[1]) <= LARGEST_SIZE
        expect(fits, f"tensors: {row[0]}", f"a shape of at most {LARGEST_SIZE} entries", row[1])
    names = [row[0] for row in metadata["tensors"]]
    expect(names == sorted(set(names)), "tensors", "names sorted and once each", names)
    expect(isinstance(metadata["parts"], list), "parts", "a list", metadata["parts"])
    expect(isinstance(metadata["halves"], list), "halves", "a list", metadata["halves"])
    expect(all(map(is_count, metadata["halves"])), "halves", "lengths", metadata["halves"])


def check_entries(found: dict[str, Any], expected: Mapping[str, Entry], data_bytes: int) -> None:
    """Compare the header's tensors and the size of the data with what the metadata asks for.

    Raises:
        EditFileError: Names the tensor, what was expected and what was found.
    """
    for name in sorted(found.keys() ^ expected.keys()):
        there, asked = ("found", "not expected") if name in found else ("not found", "expected")
        raise EditFileError(f"tensor {name}: {asked} by the metadata, {there} in the header")
    end = 0
    for name, (entry, start, end) in places(expected).items():
        asked_for = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
        expect(found[name] == asked_for, f"tensor {name}", str(asked_for), found[name])
    if end != data_bytes:
        raise EditFileError(
            f"data: expected {end} bytes, found {data_bytes}; the file is cut off or has something after its end"
        )


def base64_of(data: bytes) -> str:
    """Base64 without padding; `from_base64` is the inverse."""
    return base64.b64encode(data).decode().rstrip("=")


def from_base64(text: str) -> bytes:
    """The bytes of `base64_of`; none if it is no base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


def fields_are(value: Any, where: str, *expected: str) -> None:
    """Refuse an object with other fields."""
    found = sorted(value) if isinstance(value, dict) else type(value).__name__
    expect(found == list(expected), where, f"the fields {', '.join(expected)}", found)


def is_row(value: Any, *types: Callable[[Any], Any]) -> bool:
    """Whether a list holds exactly these types."""
    return isinstance(value, list) and [type(each) for each in value] == list(types)


def is_count(value: Any) -> bool:
    """Whether a number counts entries."""
    return type(value) is int and 0 <= value <= LARGEST_SIZE


def expect(holds: bool, where: str, expected: str, found: Any) -> None:
    """Refuse what does not hold, in one line."""
    if not holds:
        text = repr(found)
        raise EditFileError(f"{where}: expected {expected}, found {text if len(text) <= 80 else text[:77] + '...'}")
