"""The room Subject: a thing taught from pictures, with samples of the half-made edit while the search goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from photopic.core.events import Event
from photopic.core.files import write_atomically
from photopic.studio.fields import SUBJECT, given, output_name
from photopic.studio.folders import subject_folder
from photopic.studio.forms import SubjectForm, checked
from photopic.studio.method import drive, entry_of
from photopic.studio.refusals import Refused

if TYPE_CHECKING:
    from photopic.studio.pictures import Pictures
    from photopic.studio.worker import Work
    from photopic.studio.workspace import Workspace

SAMPLE_STEPS = 15  # denoising steps of a sample: it shows where the search goes, not how fine it can be


def check(form: Mapping[str, Any], workspace: Workspace, pictures: Pictures) -> tuple[str, dict[str, Any]]:
    """The title of a job and its form.

    Raises:
        Refused: Names what does not fit.
    """
    found = checked(SubjectForm, form)
    for number, each in enumerate(found.pictures):
        pictures.about(each.id, field=f"pictures.{number}")
    entry = entry_of(SUBJECT)
    known = {option["name"] for each in entry["parameters"] for option in each.get("options", ())} | {"preset"}
    if unknown := sorted(found.options.keys() - known):
        raise Refused(
            422,
            f"options: expected some of {', '.join(sorted(known))}, found {unknown[0]!r}",
            field=f"options.{unknown[0]}",
        )
    said = {"output": found.output, "noun": found.noun}
    said_form = found.model_copy(update={"output": output_name(entry, said, workspace)})
    return f"{found.token} {found.noun}", said_form.model_dump(mode="json")


def teach(work: Work) -> Iterator[Event[Any]]:
    """Locate the subject's neurons, and draw it now and then with those found so far."""
    form, entry = checked(SubjectForm, work.job.form), entry_of(SUBJECT)
    said = {"noun": form.noun, "token": form.token, **form.options}
    folder = subject_folder(work.folder / "data", form.pictures, work.pictures)
    kept = {name: value for name, value in said.items() if value not in (None, "")}
    optional = {**entry, "parameters": [{**each, "required": False} for each in entry["parameters"]]}
    words = given(
        optional, kept, workspace=work.workspace, pictures=work.pictures, models=work.models, folder=work.folder
    )
    words |= {"images": str(folder), "model": work.models.state["name"]}
    for event in drive(work, entry, words, form.output):
        yield event
        due = form.sample_every and event.done and event.done % form.sample_every == 0
        if due and event.preview is not None:
            yield from _sample(work, event)


def _sample(work: Work, event: Event[Any]) -> Iterator[Event[Any]]:
    """One picture with what was found so far in force for as long as it is drawn."""
    from photopic.data.pictures import png_bytes

    assert event.preview is not None
    model, edit = work.models.current, event.preview()
    if edit is None:
        return
    prompt = edit.subject.prompt if edit.subject else ""
    with model.edits.applied(edit):
        for drawn in model.generate_events([prompt], seeds=[0], steps=SAMPLE_STEPS):
            file = f"sample-{event.done:05d}.png"
            write_atomically(
                work.folder / file, png_bytes(drawn.images[0], {"prompt": prompt, "steps_of_search": event.done})
            )
            work.sample(file, event.done)
    yield Event(event.stage, event.done, event.total)
