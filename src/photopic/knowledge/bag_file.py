"""Files of bags of concepts: JSON Lines, one picture a line, as ``bag_record`` has it; published data sets are read unchanged.

A line ``{"path": "a.png", "caption": "%%Part1: ..."}``, as the authors of the paper share their data, is read as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from photopic.core.errors import DataError, printable
from photopic.core.files import check_file, read_file, write_atomically
from photopic.knowledge.bag_record import BagRecord, ImageFile, from_json, to_json
from photopic.knowledge.caption_text import parse

MAX_LINE = 2**24  # bytes; a bag is a few thousand


def write_bags(path: str | Path, records: Iterable[BagRecord], *, overwrite: bool = False) -> None:
    """Write a file of bags.

    Args:
        path: The file, ``.jsonl`` by habit.
        records: One a picture.
        overwrite: Replace the file if it exists.

    Raises:
        FileExistsError: If it exists.
    """
    lines = [json.dumps(to_json(record), ensure_ascii=False) for record in records]
    write_atomically(Path(path), "".join(f"{line}\n" for line in lines).encode(), new=not overwrite)


def lines_of(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of each line of a file that is not empty; a line that is no JSON is a ``DataError`` value, not raised.

    Args:
        path: The file; read line by line, so it may be large.

    Raises:
        DataError: If there is no file.
    """
    check_file(Path(path), DataError)
    with Path(path).open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            if line.strip():
                yield number, _decoded(line)


def read_bags(path: str | Path) -> Iterator[BagRecord]:
    """The records of a file of bags, one after the other.

    Args:
        path: Of JSON Lines; the published form is read as well, with whatever has to be repaired told in ``repairs``.

    Raises:
        DataError: Names the file and the line, what was expected and what was found.

    Example:
        >>> [record.image.name for record in read_bags("bags.jsonl")]  # doctest: +SKIP
        ['a.png']
    """
    for number, stated in lines_of(path):
        try:
            yield record_of(stated)
        except DataError as error:
            raise DataError(f"{path}: line {number}: {error}") from None


def record_of(stated: Any) -> BagRecord:
    """A record from one line's JSON value, in photopic's form or the published one.

    Raises:
        DataError: If it is neither, or not as it should be.
    """
    if isinstance(stated, DataError):
        raise stated
    if isinstance(stated, Mapping) and "caption" in stated and "format" not in stated:
        caption, name = stated["caption"], stated.get("path", "")
        if not isinstance(caption, str) or not isinstance(name, str):
            raise DataError('expected "path" and "caption", each a text')
        parsed = parse(caption)
        return BagRecord(
            parsed.bag, ImageFile(name) if name else None, "published text", tuple(map(str, parsed.repairs))
        )
    return from_json(stated)


def check_picture(record: BagRecord, folder: str | Path) -> bytes:
    """The bytes of a record's picture, if they are those that it was made of.

    Args:
        record: With an image.
        folder: Where its name is looked for.

    Raises:
        DataError: If there is no such picture in the folder, or its sha256 differs.
    """
    if record.image is None:
        raise DataError("expected a record that names its picture, found one without")
    name = Path(record.image.name)
    if name.is_absolute() or ".." in name.parts:  # a file from elsewhere must not choose what is read
        raise DataError(
            f"{printable(record.image.name)}: expected the name of a picture in {folder}, found a path out of it"
        )
    path = Path(folder) / name
    content = read_file(path, DataError)
    found = hashlib.sha256(content).hexdigest()
    if record.image.sha256 and found != record.image.sha256:
        raise DataError(
            f"{path}: expected the picture with sha256 {record.image.sha256[:12]}, found {found[:12]}; describe it again"
        )
    return content


def _decoded(line: bytes) -> Any:
    if len(line) == MAX_LINE:
        return DataError(f"expected at most {MAX_LINE:,} bytes, found more; is it JSON Lines?")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"expected a JSON object, found something else ({printable(str(error))})")
