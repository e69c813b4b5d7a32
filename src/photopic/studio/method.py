"""Any method of the library as a job: its form from the manifest, its events as they come, its result by its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from photopic.core.events import Event
from photopic.studio.fields import WRITES, WRITTEN, commands, given, output_name
from photopic.studio.forms import MethodForm, checked
from photopic.studio.refusals import Refused

if TYPE_CHECKING:
    from photopic.studio.models import Models
    from photopic.studio.pictures import Pictures
    from photopic.studio.worker import Work
    from photopic.studio.workspace import Workspace


def check(
    form: Mapping[str, Any], *, workspace: Workspace, pictures: Pictures, models: Models
) -> tuple[str, dict[str, Any]]:
    """The title of a job and its form; what does not fit is refused before it waits for its turn.

    Raises:
        Refused: Names the field, what was expected and what was found.
    """
    found = checked(MethodForm, form)
    entry = entry_of(found.command)
    with TemporaryDirectory(
        dir=workspace.folder / "uploads"
    ) as folder:  # what is checked is written once more when it runs
        given(entry, found.fields, workspace=workspace, pictures=pictures, models=models, folder=Path(folder))
    fields = dict(found.fields)
    if entry["result"] in WRITTEN:
        fields[WRITES] = output_name(entry, fields, workspace)
    return found.command, {"command": found.command, "fields": fields}


def entry_of(command: str) -> dict[str, Any]:
    """What the manifest says of a command.

    Raises:
        Refused: If there is none.
    """
    if command not in (known := commands()):
        raise Refused(422, f"command: expected one of {', '.join(known)}, found {command!r}"[:600], field="command")
    return known[command]


def run_method(work: Work) -> Iterator[Event[Any]]:
    """Read the arguments, drive the method and keep what came of it."""
    form = checked(MethodForm, work.job.form)
    entry = entry_of(form.command)
    said = {name: value for name, value in form.fields.items() if name != WRITES}
    words = given(entry, said, workspace=work.workspace, pictures=work.pictures, models=work.models, folder=work.folder)
    yield from drive(work, entry, words, str(form.fields.get(WRITES, "")))


def drive(work: Work, entry: Mapping[str, Any], words: Mapping[str, Any], name: str) -> Iterator[Event[Any]]:
    """Call the method of an entry with words, as the command line does, and write its result.

    Args:
        work: Of the job.
        entry: What the manifest says of the method.
        words: By parameter and option.
        name: Of an edit.
    """
    from photopic.calls.arguments import check_options, read_arguments
    from photopic.calls.methods import method_of, read_config
    from photopic.studio.outcomes import add_files, write

    yield Event("reading")
    method = method_of(entry)
    config = read_config(entry, method.signature.parameters.get("config"), method.about.presets, words)
    check_options(entry, method, words)
    writes = any(each["name"] == WRITES for each in entry["parameters"])
    place = work.folder / "export.safetensors"
    words = {**words, **({WRITES: str(place)} if writes else {})}
    arguments = read_arguments(entry, words, load_model=work.models.of) | config
    for event in method.events(**arguments, **({"run": work.run} if method.trains else {})):
        if event.result is None:
            yield event
        else:
            write(work, event.result, method.about, name)
            if writes and place.exists():
                add_files(work, place)
