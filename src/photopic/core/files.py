"""Files are written whole or not at all, never over one that has to stay; only files are read; and their JSON is JSON."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from threading import get_ident
from typing import Any

from photopic.core.errors import PhotopicError


def finite(value: Any) -> Any:
    """A value as every reader of JSON takes it: what is not finite is null, since JSON has no word for it.

    Example:
        >>> finite({"loss": float("nan"), "steps": (1, 2)})
        {'loss': None, 'steps': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write a file beside its place and rename it there; a failure leaves no partial file.

    Args:
        path: Of the file.
        content: Of the file.
        new: Whether a file that is there, or that another process writes meanwhile, has to stay.

    Raises:
        FileExistsError: If ``new`` and there is one.
    """
    temporary = path.with_name(path.name + f".{os.getpid()}-{get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            claim(path)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def share_as_usual(*paths: Path) -> None:
    """Give files the mode that any new file beside them gets: safetensors 0.8 writes files that their owner alone can read."""
    for path in paths:
        other = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}.mode")
        try:
            other.touch()  # 0o666 less the umask, which cannot be read without setting it
            path.chmod(stat.S_IMODE(other.stat().st_mode))
        finally:
            other.unlink(missing_ok=True)


def what_is_there(path: Path) -> str:
    """What a path that holds no file leads to, in words for messages; empty where it is a file, which alone is safe to open.

    Opening a pipe would wait for a writer for ever.

    Example:
        >>> what_is_there(Path("/nowhere")), what_is_there(Path("/dev/null"))
        ('nothing', 'a device')
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else "nothing"
    except OSError as error:
        return "a link that leads in a circle" if error.errno == errno.ELOOP else f"nothing readable ({error.strerror})"
    except ValueError:  # a null character
        return "nothing"
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return "" if stat.S_ISREG(mode) else next((name for test, name in kinds.items() if test(mode)), "a device")


def check_file(path: Path, error: type[PhotopicError] = PhotopicError) -> None:
    """Refuse what is no file; folders, pipes and links without an end are told before anything is opened.

    Args:
        path: The file.
        error: What to raise.

    Raises:
        PhotopicError: Of the kind asked for; says what is there in its place.
    """
    if found := what_is_there(path):
        raise error(f"{path}: expected a file, found {found}; check the path")


def read_file(path: Path, error: type[PhotopicError] = PhotopicError) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.
        error: What to raise.

    Raises:
        PhotopicError: As ``check_file``, or of the kind asked for if it cannot be read.
    """
    check_file(path, error)
    try:
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); check its permissions") from problem


def claim(path: Path) -> None:
    """Take a name that nobody has, by an empty file, so that only who made it replaces it.

    Raises:
        FileExistsError: If there is one.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
