"""Captions beside pictures, as the trainers of the field write them.

bear.txt, bear.caption or bear.png.txt beside bear.png, endings in any case, or a line {"file_name": "bear.png", "text": "a bear"}
of metadata.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from photopic.core.errors import DataError
from photopic.core.files import read_file

SUFFIXES = (".txt", ".caption")
METADATA = "metadata.jsonl"
TEXTS = ("text", "caption", "prompt")  # what the lines of metadata call a caption
MAX_BYTES = 64 * 1024  # of one caption
MAX_METADATA_BYTES = 256 * 2**20

Caption = tuple[str | None, bytes]  # its words, None where it is empty, and the bytes they were read from


def is_caption(file: Path) -> bool:
    """Whether a file holds captions, by its name.

    Example:
        >>> is_caption(Path("bear.TXT")), is_caption(Path("metadata.jsonl"))
        (True, True)
    """
    return file.suffix.lower() in SUFFIXES or file.name.lower() == METADATA


def read_captions(pictures: Sequence[Path], others: Sequence[Path]) -> tuple[dict[Path, Caption], list[str]]:
    """The caption of each picture that has one, and what holds captions of pictures that are not there.

    Args:
        pictures: Of one folder.
        others: The other entries of it.

    Raises:
        DataError: If a caption cannot be read, or a picture has two that differ; names the files.

    Example:
        >>> read_captions([Path("a.png")], [])
        ({}, [])
    """
    found: dict[Path, dict[str, Caption]] = {}  # by picture, then by where it stands
    lost: list[str] = []
    for file, meant in _beside(pictures, others):
        caption = _words(file, read_file(file, DataError)) if meant else (None, b"")
        lost += [] if meant else [f"{file.name} (a caption without its picture)"]
        for picture in meant:
            found.setdefault(picture, {})[file.name] = caption
    named = {picture.name: picture for picture in pictures}
    for file in (other for other in others if other.name.lower() == METADATA):
        for number, (name, text) in enumerate(_lines(file), start=1):
            if name in named:
                where = f"{file.name}, line {number}"
                found.setdefault(named[name], {})[where] = _words(Path(f"{file}: line {number}"), text.encode())
            else:
                lost.append(f"{name} (named in {file.name}, not there)")
    return {picture: _one(picture, captions) for picture, captions in found.items()}, lost


def _beside(pictures: Sequence[Path], others: Sequence[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Caption files with the pictures of each: of the same name before the ending, or before ``.png.txt``; case counts last."""
    by_name: dict[str, list[Path]] = {}
    for picture in pictures:
        for name in dict.fromkeys((picture.stem, picture.name, picture.stem.lower(), picture.name.lower())):
            by_name.setdefault(name, []).append(picture)
    for file in (other for other in others if other.suffix.lower() in SUFFIXES):
        meant = by_name.get(file.stem) or by_name.get(file.stem.lower(), [])
        yield file, [each for each in meant if file.stem in (each.stem, each.name)] or meant


def _one(picture: Path, captions: Mapping[str, Caption]) -> Caption:
    """The caption of a picture; several are fine where they say the same."""
    written = {where: each for where, each in captions.items() if each[0] is not None}
    if len({text for text, _ in written.values()}) > 1:
        raise DataError(f"{picture}: expected one caption, found others in {' and '.join(written)}; remove one of them")
    return next(iter((written or captions).values()))


def _words(file: Path, content: bytes) -> Caption:
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{file}: expected a caption of at most {MAX_BYTES:,} bytes, found {len(content):,}; "
            "keep one sentence, or rename the file if it is no caption"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: expected a caption in UTF-8, found other bytes at position {error.start}; save it as UTF-8"
        ) from error
    return " ".join(text.split()) or None, content


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """File name and caption of each line that is not empty."""
    content = read_file(file, DataError)
    if len(content) > MAX_METADATA_BYTES:
        raise DataError(
            f"{file}: expected at most {MAX_METADATA_BYTES:,} bytes, found {len(content):,}; split the folder"
        )
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            stated = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: line {number}: expected a JSON object, found something else ({error})") from None
        name = stated.get("file_name") if isinstance(stated, dict) else None
        text = next((stated[key] for key in TEXTS if key in stated), None) if isinstance(stated, dict) else None
        if not isinstance(name, str) or not isinstance(text, str):
            raise DataError(f'{file}: line {number}: expected "file_name" and "text", each a string')
        yield name, text
