"""What a job leaves behind, by the type of its result: an edit in the library, a page and its view, pictures, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.files import finite, write_atomically
from photopic.studio.jobs import result
from photopic.studio.library import write_new
from photopic.studio.views import view_json
from photopic.studio.worker import Work

if TYPE_CHECKING:
    from photopic.core.about import About

VIEW = "view.json"
PAGE = "page.html"
DATA = "data.json"  # the numbers of a report, as the command prints them with --json


def write(work: Work, found: Any, about: About, name: str) -> None:
    """Keep a result and say where it is.

    Args:
        work: Of the job.
        found: What the method made.
        about: Of the method.
        name: Of an edit.
    """
    writers: dict[str, Callable[[Work, Any, About, str], None]] = {
        "Edit": _edit, "Edits": _edits, "Report": _report, "Verdict": _report, "Map": _map,
    }  # fmt: skip
    kinds = [each.__name__ for each in type(found).__mro__]  # a report of probes is a report
    work.job.provenance = json.loads(json.dumps(finite(getattr(found, "provenance", None) or {}), default=str))
    writers.get(next((kind for kind in kinds if kind in writers), ""), _saved)(work, found, about, name)


def _edit(work: Work, edit: Any, about: About, name: str) -> None:
    from photopic.core.edits.file import save

    place = write_new(work.workspace.edits / name, partial(save, edit))
    work.job.results.append(result("edit", place.name, f"/api/edits/{place.name}"))
    work.jobs.stream.publish("edits", {"added": place.name})
    if about.view is not None:
        _view(work, about.view(edit))


def _edits(work: Work, several: Any, about: About, name: str) -> None:
    for each, edit in several.edits.items():
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in each).strip("-")
        _edit(work, edit, about, f"{plain or 'edit'}.edit")


def _report(work: Work, found: Any, about: About, name: str) -> None:
    from photopic.report.html import page
    from photopic.report.views import view_of

    view = about.view(found) if about.view else view_of(found)
    data = json.dumps(finite(found.to_dict()), ensure_ascii=False, default=str)
    write_atomically(work.folder / DATA, data.encode())
    _view(work, view, data_file=DATA)
    write_atomically(work.folder / PAGE, page(view).encode())
    work.add("page", PAGE)


def _view(work: Work, view: Any, **more: Any) -> None:
    write_atomically(work.folder / VIEW, json.dumps(view_json(view), ensure_ascii=False).encode())
    work.add("view", VIEW, **more)


def _map(work: Work, found: Any, about: About, name: str) -> None:
    from photopic.report.pictures import write_map

    folder = work.folder / "map"
    write_map(found, folder)
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".png", path.name)):  # what is seen first
        path.rename(work.folder / path.name)
        work.add("picture" if path.suffix == ".png" else "file", path.name)
    folder.rmdir()


def _saved(work: Work, model: Any, about: About, name: str) -> None:
    """A model in its folder; a guard in that of the guards."""
    if getattr(model, "saves_file", False):
        made = write_new(work.workspace.guards / name, model.save)
        work.job.results.append(result("guard", made.name, f"/api/guards/{made.name}"))
        work.jobs.stream.publish("guards", {"added": made.name})
        return
    place = work.folder / "model"
    model.save(place)
    if about.view is not None:
        _view(work, about.view(model))
    add_files(work, place)


def add_files(work: Work, place: Path) -> None:
    """A file, or every file of a folder, as results of the job; those of a folder are moved beside it under names of their own."""
    for path in [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file()):
        flat = str(path.relative_to(work.folder)).replace("/", "-")
        if path.parent != work.folder:
            (work.folder / flat).hardlink_to(path)
        work.add("file", flat)
