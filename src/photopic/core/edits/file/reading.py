"""Edits as files: `load`, `save`, and the same with bytes; what stands in a file is in `photopic.core.editfile.content`."""

from __future__ import annotations

from pathlib import Path

from photopic.core.editfile.content import EditContent, named, read_content, write_content
from photopic.core.edits.edit import Edit
from photopic.core.edits.file.parts import made_part, part_content
from photopic.core.errors import EditFileError
from photopic.core.files import read_file, write_atomically


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
    return write_content([part_content(part) for part in edit.parts], edit.base, edit.provenance)


def from_bytes(content: bytes, name: str = "edit") -> Edit:
    """Read the bytes of a file called ``name`` in messages.

    Raises:
        EditFileError: If they are not what `to_bytes` gives.
    """
    with named(name):
        return _made(read_content(content))


def content_of(edit: Edit) -> EditContent:
    """An edit as its file would hold it."""
    return read_content(to_bytes(edit))


def _made(found: EditContent) -> Edit:
    parts = []
    for number, part in enumerate(found.parts):
        try:
            parts.append(made_part(part))
        except EditFileError as error:
            raise EditFileError(f"tensor {number}.{error}") from None
    edit = Edit(tuple(parts), found.base, found.provenance)
    if edit.parts != tuple(parts):
        raise EditFileError("expected parts that touch something, those that set entries first, found others")
    return edit
