"""The room Draw: the form as ``photopic generate`` takes it, and its pictures as they come, each with its settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.errors import EditError
from photopic.core.events import Event
from photopic.core.files import write_atomically
from photopic.studio.forms import DrawForm, Region, checked
from photopic.studio.refusals import Refused
from photopic.studio.workspace import Workspace

if TYPE_CHECKING:
    from photopic.calls.drawing import Asked, Drawn
    from photopic.studio.pictures import Pictures
    from photopic.studio.worker import Work

LAYOUT = "layout.json"
MAP_SIDE = 256  # pixels at least of a picture of attention


def check(form: Mapping[str, Any], workspace: Workspace, pictures: Pictures) -> tuple[str, dict[str, Any]]:
    """The title of a job and its form, with every default said; edits and pictures have to be there.

    Raises:
        Refused: Names what does not fit.
    """
    found = checked(DrawForm, form)
    edit_files(found, workspace)
    for name, key in [] if found.start is None else [("picture", found.start.picture), ("mask", found.start.mask)]:
        if key is not None:
            pictures.about(key, field=f"start.{name}")
    for name in ("width", "height"):
        if found.start is not None and getattr(found, name) is not None:
            size = getattr(found, name)
            raise Refused(
                422, f"{name}: expected none with a picture to start from, found {size}; leave it empty", field=name
            )
    if found.in_region and not found.layout:
        raise Refused(422, "in_region: expected a layout, found none; draw a box for each edit", field="in_region")
    names = {each.name for each in found.edits}
    for number, region in enumerate(found.layout):
        _check_region(region, f"layout.{number}", names, workspace)
    return found.prompt, found.model_dump(mode="json")


def edit_files(form: DrawForm, workspace: Workspace) -> list[Path]:
    """The files of a drawing's edits.

    Raises:
        Refused: Names the first that is not there.
    """
    return [workspace.edit(each.name, exists=True, field=f"edits.{number}") for number, each in enumerate(form.edits)]


def _check_region(region: Region, field: str, names: set[str], workspace: Workspace) -> None:
    """A box that is bound to an edit says that edit's word."""
    if region.edit is None:
        return
    if region.edit not in names:
        reason = f"{field}: expected one of the edits, found {region.edit}; add it to them"
        raise Refused(422, reason, field=f"{field}.edit")
    from photopic.core.editfile.content import load_content

    tokens = load_content(workspace.edit(region.edit, exists=True)).tokens
    if tokens and not any(token in region.words for token in tokens):
        said = f"expected the word {tokens[0]} of {region.edit}, found {region.words!r}; say it in the box's words"
        raise Refused(422, f"{field}: {said}", field=f"{field}.words")


def asked(form: DrawForm, workspace: Workspace, pictures: Pictures, folder: Path) -> Asked:
    """The form as the command line would have it; a layout becomes a file of the job."""
    from photopic.calls.drawing import Asked
    from photopic.models.text_to_image.generate_config import GenerateConfig

    start = form.start
    layout = None
    if form.layout:
        layout = folder / LAYOUT
        # without what was not said, as read_layout takes it
        regions = [region.model_dump(mode="json", exclude={"edit"}, exclude_none=True) for region in form.layout]
        write_atomically(layout, json.dumps({"regions": regions}, indent=1).encode())
    config = GenerateConfig(
        steps=form.steps,
        guidance=form.guidance,
        batch=form.batch,
        negative_prompt=form.negative,
        scheduler=form.scheduler,
        strength=start.strength if start else None,
        width=form.width,
        height=form.height,
    )

    def path_of(parameter: Mapping[str, Any], word: Any) -> Any:
        if parameter.get("role") != "edit" and "exists" not in parameter:
            raise Refused(
                422, f"controls: {parameter['name']} cannot be given here; draw a layout instead", field="controls"
            )
        found = [
            str(workspace.edit(each, exists=True) if parameter.get("role") == "edit" else pictures.path(each))
            for each in ([word] if isinstance(word, str) else word)
        ]
        return found[0] if isinstance(word, str) else found

    return Asked(
        prompt=form.prompt,
        edits=[(file, each.weight) for file, each in zip(edit_files(form, workspace), form.edits, strict=True)],
        count=form.count,
        seed=form.seed,
        config=config,
        overlap=form.overlap,
        image=pictures.path(start.picture) if start else None,
        mask=pictures.path(start.mask) if start and start.mask else None,
        layout=layout,
        layout_strength=form.layout_strength if form.layout else None,
        repeats=form.repeats if form.layout else None,
        in_region=form.in_region and bool(form.layout),
        controls=form.controls,
        attention=form.attention,
        path_of=path_of,
    )


def draw(work: Work) -> Iterator[Event[Any]]:
    """Draw, and write each picture as soon as its batch is finished."""
    from photopic.calls.drawing import draw_events, prepare

    form = checked(DrawForm, work.job.form)
    try:
        prepared = prepare(asked(form, work.workspace, work.pictures, work.folder))
    except EditError:
        edit_files(form, work.workspace)  # one that was deleted since it was asked for is named as such
        raise
    for event in draw_events(prepared, work.models.current):
        if event.result is not None:
            work.job.provenance = {**event.result.settings, "seeds": [form.seed, form.count]}
            _write(work, event.result)
        yield event


def _write(work: Work, drawn: Drawn) -> None:
    """The pictures of a batch, and of each where every word was read."""
    height, width = drawn.images.shape[1:3]
    for index, content in enumerate(drawn.files()):
        number = drawn.first + index + 1
        file = f"{number:04d}.png"
        write_atomically(work.folder / file, content)
        words = _maps(work, drawn, index, number) if drawn.maps is not None else []
        files, seed = [each["file"] for each in words], drawn.seed + number - 1
        work.add("picture", file, width=width, height=height, seed=seed, files=files, words=words)
    work.jobs.save(work.job)


def _maps(work: Work, drawn: Drawn, index: int, number: int) -> list[dict[str, Any]]:
    """One picture a word, bright where it was read most, each word on its own scale."""
    from photopic.core.results import Map
    from photopic.data.overlays import overlays
    from photopic.data.pictures import png_bytes

    assert drawn.maps is not None
    (over,) = overlays(Map(drawn.maps[index][None], drawn.words, {}, drawn.images[index][None]), MAP_SIDE)
    found = []
    for place, word in enumerate(drawn.words):
        file = f"{number:04d}-word-{place + 1:02d}.png"
        write_atomically(work.folder / file, png_bytes(over[word]))
        found.append({"word": word, "file": file, "maps": [f"/api/files/{work.job.id}/{file}"]})
    return found
