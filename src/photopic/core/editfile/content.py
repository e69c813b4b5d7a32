"""The file of an edit: one safetensors with all metadata as one canonical JSON string.

Saving the same edit gives the same bytes on every machine. The reader accepts only what the writer writes: it derives every
tensor's type, shape and place from the metadata, compares that with the header before it reads any of them, and checks a SHA-256
over everything.

Metadata, under the key ``photopic``: ``format`` (version), ``base`` (name, digest, sketch), ``tensors`` (name, shape, sketch of
each touched tensor, sorted), ``parts``, ``provenance``, ``halves``, ``checksum``. Hashes and sketches are in base64. Part *n*
keeps its data in safetensors entries whose names begin with ``n.``: ``n.indices`` (coded sets one after the other, see
`photopic.core.editfile.indices`), ``n.values``, and so on; how each kind of part is kept is in `photopic.core.editfile.layouts`.
Entries of up to 8 MiB of 16-bit numbers are kept as `photopic.core.editfile.float16_code` codes them wherever that is shorter,
larger ones as they are, which is written and read five times as fast (coded ones, of before, are still read); ``halves`` has the
length of the code, or 0, for each entry of such numbers in the order of their names.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from photopic.core.editfile import container
from photopic.core.editfile.coded_layouts import Fields, Tensors
from photopic.core.editfile.container import Data, Described, Entry
from photopic.core.editfile.float16_code import MANTISSA, decode_halves, encode_halves
from photopic.core.editfile.layouts import LAYOUTS
from photopic.core.editfile.views import Subject
from photopic.core.errors import EditError, EditFileError
from photopic.core.files import read_file
from photopic.core.identity import Fingerprint

FORMAT = 2
LARGE = 8 << 20  # bytes of 16-bit numbers above which they are not coded


@dataclass(frozen=True, eq=False)
class PartContent:
    """One part of an edit as its file holds it.

    Attributes:
        kind: Such as ``values``.
        fields: Of the part by name, with arrays and `Numbers` in the place of tensors.
    """

    kind: str
    fields: Fields


@dataclass(frozen=True, eq=False)
class EditContent:
    """An edit as its file holds it: everything but torch's tensors.

    Attributes:
        content: The file.
        parts: In its order.
        base: The model it was made for.
        provenance: How it was made.

    Example:
        >>> load_content("bear.edit").tokens  # doctest: +SKIP
        ('<mine>',)
    """

    content: bytes
    parts: tuple[PartContent, ...]
    base: Fingerprint
    provenance: Mapping[str, Any]

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens it adds to the tokenizers."""
        return tuple(part.fields["token"] for part in self.parts if part.kind == "token")

    @property
    def label(self) -> str:
        """What to call it: its new words, else its noun; empty if it has neither."""
        subject = Subject.of(self.provenance)
        return "+".join(self.tokens) or (subject.noun if subject else "")

    def digest(self) -> str:
        """Hex sha256 of the file."""
        return hashlib.sha256(self.content).hexdigest()


@runtime_checkable
class AnyEdit(Protocol):
    """An `Edit`, or the `EditContent` of a file: what is looked into takes either."""

    @property
    def base(self) -> Fingerprint:
        """The model it was made for."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""

    @property
    def label(self) -> str:
        """What to call it."""


def load_content(path: str | Path) -> EditContent:
    """Read the file of an edit without making tensors of it.

    Args:
        path: A file that `photopic.core.edits.file.save` wrote.

    Raises:
        EditFileError: If it is not such a file; says what is wrong and where.

    Example:
        >>> load_content("bear.edit").base.name  # doctest: +SKIP
        'emoji-diffusion'
    """
    path = Path(path)
    with named(path.name):
        return read_content(read_file(path, EditFileError))


@contextmanager
def named(name: str) -> Iterator[None]:
    """A block whose refusals begin with the name of a file."""
    try:
        yield
    except EditError as error:  # the parts and the index code check themselves
        raise EditFileError(f"{name}: {error}".replace("\n", "\\n")) from None
    except RecursionError:  # of Python itself, in showing what was found
        raise EditFileError(f"{name}: expected plain metadata, found deeply nested lists or objects") from None


def write_content(parts: Sequence[PartContent], base: Fingerprint, provenance: Mapping[str, Any]) -> bytes:
    """The bytes of a file; `read_content` is the inverse."""
    names = sorted(base.shapes.keys() & base.sketches.keys())
    tensors = [(name, tuple(base.shapes[name])) for name in names]
    entries: dict[str, tuple[Entry, Data]] = {}
    described = []
    for number, part in enumerate(parts):
        says, found = LAYOUTS[part.kind].encode(part.kind, part.fields, tensors)
        described.append(says)
        entries |= {f"{number}.{name}": each for name, each in found.items()}
    halves = []
    for name in sorted(name for name, (entry, _) in entries.items() if entry.dtype in MANTISSA):
        entry, data = entries[name]
        code = data if len(data) > LARGE else encode_halves(data, entry.dtype)
        halves.append(len(code) if len(code) < len(data) else 0)
        entries[name] = _stored(entry, halves[-1]), code if halves[-1] else data
    metadata = {
        "format": FORMAT,
        "base": [base.name, container.base64_of(bytes.fromhex(base.digest)), base.sketch],
        "halves": halves,
        "tensors": [[name, list(base.shapes[name]), base.sketches[name]] for name in names],
        "parts": described,
        "provenance": provenance,
    }
    order = container.in_order({name: entry for name, (entry, _) in entries.items()})
    data = b"".join(entries[name][1] for name in order)
    metadata["checksum"] = _checksum(metadata, data)
    header = container.header(_canonical(metadata), order)
    return struct.pack("<Q", len(header)) + header + data


def read_content(content: bytes) -> EditContent:
    """The bytes of a file, checked; nothing is allocated before.

    Raises:
        EditError: If they are not what `write_content` gives.
        RecursionError: If what stands there is nested too deeply.
    """
    header, text, data = container.split(content)
    metadata = container.parse(text)
    found = metadata.get("format")
    if isinstance(found, str):  # such as "photopic guard 1"
        raise EditFileError(f"expected an edit, found a file of photopic of another kind ({found[:40]!r})")
    if type(found) is not int or found != FORMAT:
        raise EditFileError(f"expected format version {FORMAT}, found {found!r}; another version of photopic wrote it")
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
    name, digest, sketch = metadata["base"]
    return EditContent(
        content,
        tuple(_part(number, says, tensors, read) for number, says in enumerate(metadata["parts"])),
        Fingerprint(name, container.from_base64(digest).hex(), sketches, shapes, sketch),
        metadata["provenance"],
    )


def _part(number: int, says: Described, tensors: Tensors, read: Mapping[str, Data]) -> PartContent:
    prefix = f"{number}."
    data = {name.removeprefix(prefix): each for name, each in read.items() if name.startswith(prefix)}
    try:
        return PartContent(says["kind"], LAYOUTS[says["kind"]].decode(says, tensors, data))
    except EditFileError as error:
        raise EditFileError(f"tensor {prefix}{error}") from None


def _expected_entries(parts: list[Any], tensors: Tensors) -> dict[str, Entry]:
    """The tensors that the parts ask for, once all they claim is checked."""
    expected: dict[str, Entry] = {}
    for number, part in enumerate(parts):
        kind = str(part.get("kind")) if isinstance(part, dict) else ""
        container.expect(kind in LAYOUTS, f"part {number}: kind", f"one of {', '.join(LAYOUTS)}", kind)
        LAYOUTS[kind].check(f"part {number}", part, tensors)
        expected |= {f"{number}.{name}": entry for name, entry in LAYOUTS[kind].entries(part)}
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
        if len(data) <= LARGE and len(encode_halves(data, entry.dtype)) < len(data):
            raise EditFileError(f"tensor {name}: expected coded numbers, found plain ones, which are longer")
        return data
    try:
        return decode_halves(data, prod(entry.shape), entry.dtype)
    except EditError as error:
        raise EditFileError(f"tensor {name}: {error}") from None


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
