"""The room Guard: the guards that were fitted, and what one says of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from photopic.core.errors import PhotopicError
from photopic.core.events import Event
from photopic.core.files import finite, write_atomically
from photopic.studio.folders import picture_folder
from photopic.studio.forms import CheckForm, checked

if TYPE_CHECKING:
    from photopic.studio.pictures import Pictures
    from photopic.studio.worker import Work
    from photopic.studio.workspace import Workspace

VERDICTS = "verdicts.json"


def guards(workspace: Workspace) -> list[dict[str, Any]]:
    """Every guard of the workspace, the newest first; one that cannot be read says why."""
    from photopic.guard.guardfile import load

    found = []
    for path in workspace.guards.glob("*.guard"):
        if path.is_symlink() or not path.is_file():
            continue
        about: dict[str, Any] = {"name": path.name, "bytes": path.stat().st_size, "created": path.stat().st_mtime}
        try:
            saved = load(path)
            about |= {"model": saved.model, "checks": [each.kind for each in saved.checks]}
        except PhotopicError as error:
            about |= {"model": "", "checks": [], "error": str(error)}
        found.append(about)
    return sorted(found, key=lambda each: each["created"], reverse=True)


def check(form: Mapping[str, Any], workspace: Workspace, pictures: Pictures) -> tuple[str, dict[str, Any]]:
    """The title of a job and its form.

    Raises:
        Refused: Names what does not fit.
    """
    found = checked(CheckForm, form)
    workspace.guard(found.guard, exists=True)
    for number, key in enumerate(found.pictures):
        pictures.about(key, field=f"pictures.{number}")
    return f"{found.guard}: {len(found.pictures)} pictures", found.model_dump()


def judge(work: Work) -> Iterator[Event[Any]]:
    """Ask a guard about every picture, as ``photopic guard check`` does."""
    from photopic.data.class_folder import load_classes
    from photopic.guard.guarded import load_guarded
    from photopic.guard.guardfile import load
    from photopic.guard.verdicts import verdicts
    from photopic.models.classifier import Classifier

    form = checked(CheckForm, work.job.form)
    path = work.workspace.guard(form.guard, exists=True)
    yield Event("loading")
    name = work.models.check(load(path).model, "photopic.models.classifier:Classifier")
    made: Any = load_guarded(path, work.models.of(Classifier, name))  # type: ignore[arg-type]
    folder = picture_folder(work.folder / "data", form.pictures, work.pictures, field="pictures")
    judged: list[Any] = []
    for each in made.stream(load_classes(folder)):  # in the order of their names, which is that of the form
        judged += each
        yield Event("checking", len(judged), len(form.pictures))
    names = [work.pictures.about(key)["name"] for key in form.pictures]
    said = verdicts(made, form.guard, names, judged)
    said["pictures"] = [row | {"id": key} for row, key in zip(said["pictures"], form.pictures, strict=True)]
    write_atomically(work.folder / VERDICTS, json.dumps(finite(said)).encode())
    work.add("verdicts", VERDICTS, name=form.guard, data_file=VERDICTS)
    yield Event("checking", len(judged), len(judged))
