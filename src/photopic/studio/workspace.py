"""The folder of a studio: edits, pictures, uploads and runs. No name from a browser becomes a path without passing here."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path
from typing import IO

from photopic.core.errors import PhotopicError
from photopic.core.files import what_is_there
from photopic.studio.refusals import Refused

NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"  # of a file that a person named, but for its ending
ID = re.compile(r"[0-9a-f]{32}")  # of what was uploaded: the beginning of its SHA-256
JOB_ID = re.compile(r"[0-9]{6}")
FOLDERS = ("edits", "guards", "pictures", "uploads", "runs")


class Workspace:
    """One studio's folder, held by one process at a time.

    Args:
        folder: Made if missing.

    Raises:
        PhotopicError: If another studio has it.

    Example:
        >>> import tempfile
        >>> place = Workspace(tempfile.mkdtemp())
        >>> place.edit("../other.edit")
        Traceback (most recent call last):
        photopic.studio.refusals.Refused: name: expected letters, digits, dots and dashes ending in .edit, found '../other.edit'
        >>> place.close()
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = (self.folder / "lock").open(
            "a"
        )  # the system frees it when this process ends, however it ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise PhotopicError(
                f"{folder}: another studio works here; close it, or choose another --workspace"
            ) from None
        for left in [each for name in FOLDERS for each in (self.folder / name).rglob("*.tmp")]:
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote

    def close(self) -> None:
        """Give the folder free."""
        self._lock.close()

    def said(self, line: str) -> str:
        """A message without the paths of this folder: who reads it knows files by their names."""
        for name in FOLDERS:
            line = line.replace(f"{self.folder / name}/", "")
        return line

    @property
    def edits(self) -> Path:
        """Folder of the edit files."""
        return self.folder / "edits"

    @property
    def guards(self) -> Path:
        """Folder of the guard files."""
        return self.folder / "guards"

    def edit(self, name: str, *, exists: bool = False, field: str = "name") -> Path:
        """The file of an edit.

        Args:
            name: Of the file.
            exists: Whether it has to be there.
            field: Of the form that names it.

        Raises:
            Refused: If it is no such name, or there is none.
        """
        return self._file("edit", name, exists, field)

    def guard(self, name: str, *, exists: bool = False, field: str = "guard") -> Path:
        """The file of a guard; arguments and errors as those of ``edit``."""
        return self._file("guard", name, exists, field)

    def _file(self, kind: str, name: str, exists: bool, field: str) -> Path:
        if not isinstance(name, str) or not re.fullmatch(rf"{NAME}\.{kind}", name):
            reason = f"{field}: expected letters, digits, dots and dashes ending in .{kind}, found {name!r}"
            raise Refused(400, reason[:300], field=field)
        path = self.folder / f"{kind}s" / name
        if exists and (path.is_symlink() or what_is_there(path)):  # a link might lead elsewhere
            raise Refused(404, f"{name}: expected a file of the workspace, found none", field=field)
        return path

    def free(self, kind: str, name: str) -> Path:
        """The place of a new ``edit`` or ``guard``.

        Raises:
            Refused: If it is no such name, or taken.
        """
        path = self._file(kind, name, False, "output")
        if path.exists() or path.is_symlink():
            raise Refused(409, f"{name}: expected a new name, found a file called so; choose another", field="output")
        return path

    def uploaded(self, folder: str, key: str, *, field: str | None = None) -> Path:
        """The file of what was uploaded, without its ending.

        Raises:
            Refused: If it is no id.
        """
        if not isinstance(key, str) or not ID.fullmatch(key):
            raise Refused(400, f"expected the id of an upload, found {key!r}"[:200], field=field)
        return self.folder / folder / key

    def run(self, job: str) -> Path:
        """The folder of a job.

        Raises:
            Refused: If it is no id.
        """
        if not JOB_ID.fullmatch(job):
            raise Refused(404, f"job: expected the number of a job, found {job!r}")
        return self.folder / "runs" / job
