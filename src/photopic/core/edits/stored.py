"""An edit by its file, read when it is asked for, so that of many large ones only one is in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from photopic.core.digests import hashed
from photopic.core.edits import file
from photopic.core.edits.edit import Edit
from photopic.core.errors import EditFileError
from photopic.core.files import read_file


@dataclass(frozen=True)
class StoredEdit:
    """The file of an edit.

    Attributes:
        path: Of the file.

    Example:
        >>> StoredEdit(Path("bear.edit")).read().tokens  # doctest: +SKIP
        ('<mine>',)
    """

    path: Path

    def read(self) -> Edit:
        """The edit.

        Raises:
            EditFileError: If it is not the file of an edit.
        """
        return file.load(self.path)

    def digest(self) -> str:
        """Hex sha256 of the file."""
        return hashed(read_file(self.path, EditFileError))


def opened(edit: Edit | StoredEdit) -> Edit:
    """The edit itself; one that is stored is read anew at every call."""
    return edit.read() if isinstance(edit, StoredEdit) else edit
