"""The edits of a workspace: what there is, what one holds, how two differ, and what several become together."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from pathlib import Path
from typing import Any

from photopic.core.editfile.content import load_content, named, read_content
from photopic.core.editfile.views import Subject
from photopic.core.errors import PhotopicError
from photopic.core.files import write_atomically
from photopic.edit.diff import diff, diff_view
from photopic.edit.inspect import describe, inspect
from photopic.studio.refusals import Refused
from photopic.studio.views import view_json
from photopic.studio.workspace import Workspace

OVERLAPS = ("union", "first", "sum", "ties")


class Library:
    """The edit files of a workspace; looking into them takes no torch.

    Args:
        workspace: Where they lie.
    """

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self._known: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}  # name: (size and time, what is in it)
        self._lock = threading.Lock()

    def all(self) -> list[dict[str, Any]]:
        """Every edit, the newest first; one that cannot be read says why."""
        paths = [path for path in self.workspace.edits.glob("*.edit") if path.is_file() and not path.is_symlink()]
        found = [self._about(path) for path in paths]
        with self._lock:  # of those that are gone nothing is kept
            self._known = {each["name"]: self._known[each["name"]] for each in found}
        return sorted(found, key=lambda each: each["created"], reverse=True)

    def _about(self, path: Path) -> dict[str, Any]:
        there = path.stat()
        stamp = (there.st_size, there.st_mtime_ns)
        with self._lock:
            known = self._known.get(path.name)
        if known and known[0] == stamp:
            return known[1]
        about = {"name": path.name, "bytes": there.st_size, "created": there.st_mtime}
        try:
            about |= _facts(path)
        except PhotopicError as error:
            about |= {"error": str(error)}
        with self._lock:
            self._known[path.name] = (stamp, about)
        return about

    def named(self, name: str, sha256: str) -> str | None:
        """The name here of an edit that a picture names: the same content, called so or otherwise."""
        same = [each["name"] for each in self.all() if each.get("sha256") == sha256]
        return name if name in same else same[0] if same else None

    def add(self, name: str, content: bytes) -> dict[str, Any]:
        """Keep an edit that was uploaded.

        Raises:
            Refused: If the name is taken or none.
            EditFileError: If it is not the file of an edit.
        """
        path = self.workspace.free("edit", name)
        with named(name):
            read_content(content)
        try:
            write_atomically(path, content, new=True)
        except FileExistsError:
            raise Refused(
                409, f"{name}: expected a new name, found an edit called so; choose another", field="name"
            ) from None
        return self._about(path)

    def remove(self, name: str) -> None:
        """Delete an edit.

        Raises:
            Refused: If there is none.
        """
        self.workspace.edit(name, exists=True).unlink()

    def view(self, name: str) -> dict[str, Any]:
        """What an edit holds, as ``photopic inspect`` shows it."""
        report = inspect(load_content(self.workspace.edit(name, exists=True)), names=[name])
        assert inspect.about.view is not None
        return view_json(inspect.about.view(report))

    def diff(self, a: str, b: str) -> dict[str, Any]:
        """How two edits differ, as ``photopic diff`` shows it."""
        first, second = (load_content(self.workspace.edit(name, exists=True)) for name in (a, b))
        return view_json(diff_view(diff(first, second, names=[a, b])))

    def interference(self, names: list[str]) -> dict[str, Any]:
        """Where edits would get in each other's way, as ``photopic edit interference`` shows it."""
        from photopic.core.edits.file import load
        from photopic.edit.interference import interference, interference_view

        edits = [load(self.workspace.edit(name, exists=True)) for name in names]
        return view_json(interference_view(interference(edits, names=names)))

    def compose(self, names: list[str], overlap: str, output: str) -> dict[str, Any]:
        """Make one edit of several and keep it; what needs the base model is a job.

        Raises:
            Refused: If the name is taken.
            OverlapError: If they want different values of the same entries and no policy says what these become.
        """
        from photopic.core.edits.file import load, save
        from photopic.edit.compose import compose

        place = self.workspace.free("edit", output)
        edits = [load(self.workspace.edit(name, exists=True)) for name in names]
        made = compose(edits, overlap=overlap, names=names)  # type: ignore[arg-type]  # one of the policies
        return self._about(write_new(place, partial(save, made)))


def write_new(place: Path, save: Any) -> Path:
    """Write a file whole under a name that is free, or the next one; nothing that is there is replaced.

    Args:
        place: Where it is wanted.
        save: Writes to the path it is given.

    Returns:
        Where it is.
    """
    temporary = place.with_name(f".{place.name}.tmp")  # hidden, so that nobody takes it for an edit
    try:
        save(temporary)
        content = temporary.read_bytes()
    finally:
        temporary.unlink(missing_ok=True)
    number, free = 1, place
    while True:
        try:
            write_atomically(free, content, new=True)
            return free
        except FileExistsError:
            number += 1
            free = place.with_stem(f"{place.stem}-{number}")


def _facts(path: Path) -> dict[str, Any]:
    content = load_content(path)
    subject = Subject.of(content.provenance)
    return {
        "method": content.provenance.get("method", ""),
        "noun": subject.noun if subject else "",
        "token": " ".join(content.tokens) or (subject.token if subject else ""),
        "prompt": subject.prompt if subject else "",
        "weights": describe(content).count,
        "model": content.base.name,
        "sha256": hashlib.sha256(content.content).hexdigest(),
    }
