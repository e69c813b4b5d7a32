"""The file of an edit: one safetensors with all metadata as one canonical JSON string.

Saving the same edit gives the same bytes on every machine. The reader accepts only what the writer writes: it derives every
tensor's type, shape and place from the metadata, compares that with the header before it reads any of them, and checks a SHA-256
over everything.

Metadata, under the key ``photopic``: ``format`` (version), ``base`` (name, digest, sketch), ``tensors`` (name, shape, sketch of
each touched tensor, sorted), ``parts``, ``provenance``, ``checksum``. Part *n* keeps its data in safetensors entries ``n.indices``
(coded sets one after the other, see `photopic.core.indices`), ``n.values``, ``n.levels`` (the four values of a 2-bit tensor) and
``n.rows.<component>``.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from photopic.core import _editlayout as layout
from photopic.core import indices
from photopic.core._editlayout import Entry
from photopic.core._parts import LEVELS, Part, Shut, TokenRows, Values
from photopic.core.edits import Edit
from photopic.core.errors import EditError, EditFileError
from photopic.core.fingerprint import Fingerprint
from photopic.core.runs import write_atomically

FORMAT = 1


def save(edit: Edit, path: str | Path) -> None:
    """Write an edit, whole or not at all.

    Args:
        edit: What to write.
        path: Replaced if it exists.

    Raises:
        EditFileError: If the place cannot be written.

    Example:
        >>> save(edit, "bear.edit")  # doctest: +SKIP
    """
    path = Path(path)
    try:
        write_atomically(path, to_bytes(edit))
    except OSError as error:
        raise EditFileError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another place"
        ) from error


def load(path: str | Path) -> Edit:
    """Read an edit; nothing is allocated before it is checked.

    Args:
        path: A file that `save` wrote.

    Returns:
        The same edit.

    Raises:
        EditFileError: If it is not such a file; says what is wrong and where.

    Example:
        >>> load("bear.edit").tokens  # doctest: +SKIP
        ('<mine>',)
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EditFileError(f"{path}: cannot be read ({error.strerror})") from error
    return from_bytes(content, path.name)


def to_bytes(edit: Edit) -> bytes:
    """The bytes of the file; `from_bytes` is the inverse."""
    numbers = {name: number for number, name in enumerate(sorted(edit.base.shapes.keys() & edit.base.sketches.keys()))}
    entries: dict[str, tuple[Entry, bytes]] = {}
    parts = [_write_part(f"{number}.", part, edit, numbers, entries) for number, part in enumerate(edit.parts)]
    base = edit.base
    metadata = {
        "format": FORMAT,
        "base": {"name": base.name, "digest": base.digest, "sketch": base.sketch},
        "tensors": [[name, list(base.shapes[name]), base.sketches[name]] for name in numbers],
        "parts": parts,
        "provenance": edit.provenance,
    }
    order = layout.in_order({name: entry for name, (entry, _) in entries.items()})
    data = b"".join(entries[name][1] for name in order)
    metadata["checksum"] = _checksum(metadata, data)
    header = layout.header(_canonical(metadata), order)
    return struct.pack("<Q", len(header)) + header + data


def from_bytes(content: bytes, name: str = "edit") -> Edit:
    """Read the bytes of a file called ``name`` in messages.

    Raises:
        EditFileError: If they are not what `to_bytes` gives.
    """
    try:
        return _read(content)
    except EditFileError as error:
        raise EditFileError(f"{name}: {error}") from None
    except EditError as error:  # the parts and the index code check themselves
        raise EditFileError(f"{name}: {error}") from None


def _read(content: bytes) -> Edit:
    header, text, data = layout.split(content)
    metadata = layout.parse(text)
    if metadata.get("format") != FORMAT:
        raise EditFileError(
            f"expected format version {FORMAT}, found {metadata.get('format')!r}; update photopic to read it"
        )
    layout.check_metadata(metadata)
    expected = layout.in_order(layout.expected_entries(metadata))
    layout.check_entries(header, expected, len(data))
    if _canonical(metadata) != text or layout.header(text, expected) != content[8 : len(content) - len(data)]:
        raise EditFileError("the header is not in canonical form; save the edit again")
    checksum = metadata.pop("checksum")
    if checksum != _checksum(metadata, data):
        raise EditFileError("the checksum does not match the content; the file is damaged, get it again")
    tensors = {name: data[start:end] for name, (_, start, end) in layout.places(expected).items()}
    names = [row[0] for row in metadata["tensors"]]
    shapes = {row[0]: tuple(row[1]) for row in metadata["tensors"]}
    sketches = {row[0]: row[2] for row in metadata["tensors"]}
    parts = tuple(_read_part(f"{n}.", part, names, shapes, tensors) for n, part in enumerate(metadata["parts"]))
    base = metadata["base"]
    edit = Edit(
        parts, Fingerprint(base["name"], base["digest"], sketches, shapes, base["sketch"]), metadata["provenance"]
    )
    if len(edit.parts) != len(parts):
        raise EditFileError("expected every part to touch something, found an empty part")
    return edit


def _write_part(
    prefix: str, part: Part, edit: Edit, numbers: dict[str, int], entries: dict[str, tuple[Entry, bytes]]
) -> dict[str, Any]:
    if isinstance(part, TokenRows):
        for component, row in part.rows.items():
            entries[f"{prefix}rows.{component}"] = (Entry(layout.NAMES[row.dtype], (len(row),)), _raw(row))
        rows = {component: [layout.NAMES[row.dtype], len(row)] for component, row in part.rows.items()}
        return {"kind": "token", "token": part.token, "rows": rows}
    coded = [
        indices.encode(positions.numpy(), torch.Size(edit.base.shapes[name]).numel())
        for name, positions in part.indices.items()
    ]
    described: dict[str, Any] = {
        "kind": "shut",
        "tensors": [
            [numbers[name], len(part.indices[name]), len(code)] for name, code in zip(part.indices, coded, strict=True)
        ],
    }
    joined = b"".join(coded)
    entries[f"{prefix}indices"] = (Entry("U8", (len(joined),)), joined)
    if isinstance(part, Values):
        described |= {"kind": "values", "bits": part.bits}
        if part.bits == 2:
            packed = [_pack_levels(values) for values in part.values.values()]
            codes = b"".join(code for _, code in packed)
            entries[f"{prefix}levels"] = (Entry("F32", (len(packed), LEVELS)), b"".join(levels for levels, _ in packed))
            entries[f"{prefix}values"] = (Entry("U8", (len(codes),)), codes)
        else:
            kind = "F32" if part.bits == 32 else "F16"
            entries[f"{prefix}values"] = (Entry(kind, (part.count,)), b"".join(map(_raw, part.values.values())))
    return described


def _read_part(
    prefix: str, part: dict[str, Any], names: list[str], shapes: dict[str, tuple[int, ...]], tensors: dict[str, bytes]
) -> Part:
    if part["kind"] == "token":
        return TokenRows(
            part["token"], {c: _vector(tensors[f"{prefix}rows.{c}"], kind) for c, (kind, _) in part["rows"].items()}
        )
    positions, at = {}, 0
    for number, count, length in part["tensors"]:
        name = names[number]
        try:
            decoded = indices.decode(tensors[f"{prefix}indices"][at : at + length], torch.Size(shapes[name]).numel())
        except EditError as error:
            raise EditFileError(f"tensor {prefix}indices: {name}: {error}") from None
        if len(decoded) != count:
            raise EditFileError(f"tensor {prefix}indices: {name}: expected {count} positions, found {len(decoded)}")
        positions[name], at = torch.from_numpy(decoded), at + length
    if part["kind"] == "shut":
        return Shut(positions)
    if part["bits"] == 2:
        return Values(positions, _unpack_levels(prefix, positions, tensors), 2)
    flat = _vector(tensors[f"{prefix}values"], "F32" if part["bits"] == 32 else "F16")
    pieces = flat.split([len(each) for each in positions.values()])
    return Values(positions, dict(zip(positions, pieces, strict=True)), part["bits"])


def _pack_levels(values: Tensor) -> tuple[bytes, bytes]:
    """Four ascending levels, the last repeated where there are fewer, and two bits a value."""
    distinct = values.numpy().copy()
    distinct[distinct == 0] = 0  # one zero, not two
    levels, codes = np.unique(distinct, return_inverse=True)
    levels = np.concatenate([levels, np.repeat(levels[-1:], LEVELS - len(levels))]).astype("<f4")
    padded = np.concatenate([codes, np.zeros(-len(codes) % 4, codes.dtype)]).astype(np.uint8).reshape(-1, 4)
    return levels.tobytes(), (padded << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8).tobytes()


def _unpack_levels(prefix: str, positions: dict[str, Tensor], tensors: dict[str, bytes]) -> dict[str, Tensor]:
    levels = _vector(tensors[f"{prefix}levels"], "F32").view(-1, LEVELS)
    packed, values, at = np.frombuffer(tensors[f"{prefix}values"], np.uint8), {}, 0
    for number, (name, each) in enumerate(positions.items()):
        taken = -(-len(each) // 4)
        codes = ((packed[at : at + taken, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(-1)
        if codes[len(each) :].any() or bool((levels[number, 1:] < levels[number, :-1]).any()):
            raise EditFileError(
                f"tensor {prefix}values: {name}: expected ascending levels and zero padding, found others"
            )
        values[name], at = levels[number][torch.from_numpy(codes[: len(each)].astype(np.int64))], at + taken
    return values


def _canonical(metadata: dict[str, Any]) -> str:
    try:
        return json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise EditFileError(f"metadata: expected plain JSON values, found others ({error})") from None


def _checksum(metadata: dict[str, Any], data: bytes) -> str:
    return hashlib.sha256(_canonical(metadata).encode() + b"\n" + data).hexdigest()


def _raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _vector(data: bytes, kind: str) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=layout.DTYPES[kind])
