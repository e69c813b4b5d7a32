"""What a command reads: looked for as soon as it is named, before anything heavy is imported for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from photopic.core.errors import DataError, EditFileError, PhotopicError
from photopic.core.files import check_file


def check_inputs(entry: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse an edit, data set or file that is not there.

    Args:
        entry: What the manifest says of the method.
        given: What was typed, by parameter and option.

    Raises:
        PhotopicError: Names it.

    Example:
        >>> check_inputs({"parameters": [{"name": "edit", "role": "edit"}]}, {"edit": "no.edit"})
        Traceback (most recent call last):
        photopic.core.errors.EditFileError: no.edit: expected a file, found nothing; check the path
    """
    for each in entry["parameters"]:
        for word in _each(given.get(each["name"])):
            if each["role"] == "edit":
                check_file(Path(word), EditFileError)
            elif each["role"] == "data" or each.get("exists"):
                check_word(word, each.get("words", ()))


def check_word(word: str | Path, begin: Sequence[str] = ()) -> None:
    """Refuse what is neither a file or folder nor a word that begins as a data set's may.

    Raises:
        DataError: Names it.
    """
    if not str(word).startswith(tuple(begin)) and not Path(word).exists():
        words = f", or a word that begins with {' or '.join(begin)}" if begin else ""
        raise DataError(f"{word}: expected a file or folder{words}, found none; check the spelling")


def files(value: Any) -> Any:
    """For an option of files to read: refuse what is none. Folders are refused too.

    Raises:
        PhotopicError: Names it.
    """
    for each in _each(value):
        check_file(Path(each), PhotopicError)
    return value


def places(value: Any) -> Any:
    """For an option of files or folders to read: refuse what is not there.

    Raises:
        DataError: Names it.
    """
    for each in _each(value):
        check_word(each)
    return value


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [] if value in (None, "") else [value]
