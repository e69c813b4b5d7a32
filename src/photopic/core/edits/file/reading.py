"""The file of an edit: one safetensors with all metadata as one canonical JSON string.

Saving the same edit gives the same bytes on every machine. The reader accepts only what the writer writes: it derives every
tensor's type, shape and place from the metadata, compares that with the header before it reads any of them, and checks a SHA-256
over everything.

Metadata, under the key ``photopic``: ``format`` (version), ``base`` (name, digest, sketch), ``tensors`` (name, shape, sketch of
each touched tensor, sorted), ``parts``, ``provenance``, ``halves``, ``checksum``. Hashes and sketches are in base64. Part *n*
keeps its data in safetensors entries whose names begin with ``n.``: ``n.indices`` (coded sets one after the other, see
`photopic.core.edits.file.indices`), ``n.values``, and so on; how each kind of part is kept is in
`photopic.core.edits.file.part_encodings`. Numbers of 16 bits are kept as `photopic.core.edits.file.float16_code` codes them
wherever that is shorter; ``halves`` has the length of the code, or 0, for each such entry in the order of their names.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from photopic.core.edits.edit import Edit, Part
from photopic.core.edits.file import container
from photopic.core.edits.file.container import Data, Described, Entry
from photopic.core.edits.file.float16_code import MANTISSA, decode_halves, encode_halves
from photopic.core.edits.file.part_encodings import FORMS, Tensors
from photopic.core.errors import EditError, EditFileError
from photopic.core.files import read_file
from photopic.core.fingerprint import Fingerprint
from photopic.core.runs import write_atomically

FORMAT = 2


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
    return from_bytes(read_file(path, EditFileError), path.name)


def to_bytes(edit: Edit) -> bytes:
    """The bytes of the file; `from_bytes` is the inverse."""
    names = sorted(edit.base.shapes.keys() & edit.base.sketches.keys())
    tensors = [(name, tuple(edit.base.shapes[name])) for name in names]
    entries: dict[str, tuple[Entry, bytes]] = {}
    parts = []
    for number, part in enumerate(edit.parts):
        described, named = FORMS[part.kind].encode(part, tensors)
        parts.append(described)
        entries |= {f"{number}.{name}": each for name, each in named.items()}
    base, halves = edit.base, []
    for name in sorted(name for name, (entry, _) in entries.items() if entry.dtype in MANTISSA):
        entry, data = entries[name]
        code = encode_halves(data, entry.dtype)
        halves.append(len(code) if len(code) < len(data) else 0)
        entries[name] = _stored(entry, halves[-1]), code if halves[-1] else data
    metadata = {
        "format": FORMAT,
        "base": [base.name, container.base64_of(bytes.fromhex(base.digest)), base.sketch],
        "halves": halves,
        "tensors": [[name, list(base.shapes[name]), base.sketches[name]] for name in names],
        "parts": parts,
        "provenance": edit.provenance,
    }
    order = container.in_order({name: entry for name, (entry, _) in entries.items()})
    data = b"".join(entries[name][1] for name in order)
    metadata["checksum"] = _checksum(metadata, data)
    header = container.header(_canonical(metadata), order)
    return struct.pack("<Q", len(header)) + header + data


def from_bytes(content: bytes, name: str = "edit") -> Edit:
    """Read the bytes of a file called ``name`` in messages.

    Raises:
        EditFileError: If they are not what `to_bytes` gives.
    """
    try:
        return _read(content)
    except EditError as error:  # the parts and the index code check themselves
        raise EditFileError(f"{name}: {error}".replace("\n", "\\n")) from None
    except RecursionError:  # of Python itself, in showing what was found
        raise EditFileError(f"{name}: expected plain metadata, found deeply nested lists or objects") from None


def _read(content: bytes) -> Edit:
    header, text, data = container.split(content)
    metadata = container.parse(text)
    if type(metadata.get("format")) is not int or metadata["format"] != FORMAT:
        raise EditFileError(
            f"expected format version {FORMAT}, found {metadata.get('format')!r}; another version of photopic wrote it"
        )
    container.check_metadata(metadata)
    tensors = [(row[0], tuple(row[1])) for row in metadata["tensors"]]
    plain = _expected_entries(metadata["parts"], tensors)
    stored = _stored_entries(plain, metadata["halves"])
    container.check_entries(header, stored, len(data))
    if _canonical(metadata) != text or container.header(text, stored) != content[8 : len(content) - len(data)]:
        raise EditFileError("the header is not in canonical form; save the edit again")
    checksum = metadata.pop("checksum")
    if checksum != _checksum(metadata, data):
        raise EditFileError("the checksum does not match the content; the file is damaged, get it again")
    read: dict[str, Data] = {name: data[start:end] for name, (_, start, end) in container.places(stored).items()}
    for name, entry in plain.items():
        if entry.dtype in MANTISSA:
            read[name] = _decoded(name, entry, stored[name], read[name])
    shapes, sketches = dict(tensors), {row[0]: row[2] for row in metadata["tensors"]}
    parts = tuple(_read_part(number, part, tensors, read) for number, part in enumerate(metadata["parts"]))
    name, digest, sketch = metadata["base"]
    edit = Edit(
        parts,
        Fingerprint(name, container.from_base64(digest).hex(), sketches, shapes, sketch),
        metadata["provenance"],
    )
    if edit.parts != parts:
        raise EditFileError("expected parts that touch something, those that set entries first, found others")
    return edit


def _expected_entries(parts: list[Any], tensors: Tensors) -> dict[str, Entry]:
    """The tensors that the parts ask for, once all they claim is checked."""
    expected: dict[str, Entry] = {}
    for number, part in enumerate(parts):
        kind = str(part.get("kind")) if isinstance(part, dict) else ""
        container.expect(kind in FORMS, f"part {number}: kind", f"one of {', '.join(FORMS)}", kind)
        FORMS[kind].check(f"part {number}", part, tensors)
        expected |= {f"{number}.{name}": entry for name, entry in FORMS[kind].entries(part)}
    return expected


def _stored(entry: Entry, code_bytes: int) -> Entry:
    return Entry("U8", (code_bytes,)) if code_bytes else entry


def _stored_entries(plain: dict[str, Entry], halves: list[int]) -> dict[str, Entry]:
    """The tensors in the file, in its order, where those of 16-bit numbers may be coded."""
    names = sorted(name for name, entry in plain.items() if entry.dtype in MANTISSA)
    container.expect(len(halves) == len(names), "halves", f"{len(names)} lengths", halves)
    stored = dict(plain)
    for name, code_bytes in zip(names, halves, strict=True):
        most = max(0, plain[name].size_bytes - 1)
        container.expect(code_bytes <= most, f"halves: {name}", f"a code of at most {most} bytes", code_bytes)
        stored[name] = _stored(plain[name], code_bytes)
    return container.in_order(stored)


def _decoded(name: str, entry: Entry, stored: Entry, data: Data) -> Data:
    if stored == entry:
        if len(encode_halves(data, entry.dtype)) < len(data):
            raise EditFileError(f"tensor {name}: expected coded numbers, found plain ones, which are longer")
        return data
    try:
        return decode_halves(data, prod(entry.shape), entry.dtype)
    except EditError as error:
        raise EditFileError(f"tensor {name}: {error}") from None


def _read_part(number: int, part: Described, tensors: Tensors, read: Mapping[str, Data]) -> Part:
    prefix = f"{number}."
    data = {name.removeprefix(prefix): each for name, each in read.items() if name.startswith(prefix)}
    try:
        return FORMS[part["kind"]].decode(part, tensors, data)
    except EditFileError as error:
        raise EditFileError(f"tensor {prefix}{error}") from None


def _canonical(metadata: dict[str, Any]) -> str:
    try:
        return json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise EditFileError(f"metadata: expected plain JSON values, found others ({error})") from None


def _checksum(metadata: dict[str, Any], data: Data) -> str:
    """The beginning of a SHA-256, which finds damage as surely as the whole."""
    hashed = hashlib.sha256(_canonical(metadata).encode() + b"\n")
    hashed.update(data)
    return container.base64_of(hashed.digest()[: container.CHECKSUM_BYTES])
