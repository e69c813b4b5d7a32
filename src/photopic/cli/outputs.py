"""What a command leaves behind, by the type of the result: an edit file, a page, pictures, a folder, a verdict."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from photopic.core.errors import PhotopicError, printable
from photopic.core.files import finite

if TYPE_CHECKING:
    from photopic.core.about import About
    from photopic.core.edits import Edit
    from photopic.core.results import Map, Report, Verdict
    from photopic.core.runs import Run

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
REJECTED = 1
DEFAULTS = {"Map": "out", "File": "guard.safetensors"}


def say(text: str, *, err: bool = False) -> None:
    """Print text that may hold words of files, on stdout or stderr: a terminal only ever shows it."""
    typer.echo(printable(text), err=err)


def checked(entry: Mapping[str, Any], command: str, given: Mapping[str, Any]) -> Path | None:
    """Where to write; refused before anything takes time if a file is there or its folder is not.

    Args:
        entry: What the manifest says of the method.
        command: Words of the command, for the name of a page.
        given: What was typed.

    Raises:
        PhotopicError: Names the file and what to do.
    """
    result, word = entry["result"], given.get("output")
    output = None if word is None else Path(word)
    if output is None and result == "Report" and entry["page"]:
        model = Path(str(given.get("model", command.partition(" ")[0]))).name
        output = Path(f"{model}-{command.rpartition(' ')[2]}.html")
    output = Path(DEFAULTS[result]) if output is None and result in DEFAULTS else output
    if output is not None and result == "Model" and output.exists() and not given.get("overwrite", False):
        raise PhotopicError(f"{output}: expected a new folder name, found one; choose another or add --overwrite")
    if output is not None and result not in ("Map", "Model", "Edits"):
        check_output(output, overwrite=given.get("overwrite", False))
        for each in entry["parameters"]:
            words = given.get(each["name"], []) if each["role"] == "edit" else []
            for read in map(Path, [words] if isinstance(words, str) else words):
                if output.exists() and read.exists() and output.samefile(read):
                    raise PhotopicError(f"{output}: is one of the edits to read; choose another --output")
    return output


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a file that exists, a folder in its place, or a folder that does not, before anything takes time.

    Raises:
        PhotopicError: Names the file and what to do.
    """
    if output.is_dir():
        raise PhotopicError(f"{output}: expected a file name, found a folder; name a file in it")
    if output.exists() and not overwrite:
        raise PhotopicError(f"{output}: expected a new file name, found a file; choose another name or add --overwrite")
    if not output.absolute().parent.is_dir():
        raise PhotopicError(
            f"{output}: expected an existing folder to write into, found none; create {output.parent} first"
        )


@contextmanager
def method_run(run: Path | None, output: Path | None, *, wanted: bool = True) -> Iterator[Run | None]:
    """The folder for log and checkpoints: the user's, or one beside the output that goes once that is written.

    Ctrl-C leaves with status 130 and the folder; a refusal leaves no folder unless there is a checkpoint to go on from.
    """
    if not wanted or (run is None and output is None):
        yield None
        return
    from photopic.core.runs import CHECKPOINT, Run

    folder = run or output.with_name(output.name + ".run")  # type: ignore[union-attr]
    try:
        yield Run(folder)
    except KeyboardInterrupt:
        say("photopic: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except PhotopicError:
        if run is None and not list(folder.rglob(CHECKPOINT)):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if run is None:
        shutil.rmtree(folder, ignore_errors=True)


def write(result: Any, output: Path | None, about: About, *, as_json: bool = False, overwrite: bool = False) -> None:
    """Write a result and say on stdout where it is and what to do next.

    Args:
        result: Of a method.
        output: Where to; None only for a verdict.
        about: Of the method.
        as_json: Print the numbers and nothing else.
        overwrite: Replace files in a folder that are there.
    """
    if type(result).__name__ == "Edits":
        _edits(result.edits, output or Path("."), about, overwrite)
        return
    writers: dict[str, Callable[..., None]] = {
        "Edit": _edit, "Report": _report, "Map": _map, "Verdict": _verdict,
    }  # fmt: skip
    kinds = [each.__name__ for each in type(result).__mro__]  # a report of probes is a report
    writers.get(next((name for name in kinds if name in writers), ""), _saved)(result, output, about, as_json)
    known = defaultdict(str, {**getattr(result, "provenance", {}), "output": output}) if not as_json else {}
    for line in about.after if not as_json else ():
        say(line.format_map(known))
    if about.failed is not None and about.failed(result):
        raise typer.Exit(REJECTED)


def _edit(edit: Edit, output: Path, about: About, as_json: bool) -> None:
    from photopic.core.edits.file import save

    save(edit, output)
    if about.view is not None:
        from photopic.report.terminal import show

        show(about.view(edit))
    say(f"{output}: {output.stat().st_size:,} bytes; look inside with: photopic inspect {output}")


def _edits(edits: Mapping[str, Edit], folder: Path, about: About, overwrite: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in edits:
        check_output(folder / f"{name}.edit", overwrite=overwrite)
    for name, edit in edits.items():
        _edit(edit, folder / f"{name}.edit", about, False)


def _report(report: Report, output: Path | None, about: About, as_json: bool) -> None:
    _shown(report, output, about, as_json)
    if output is not None and not as_json:
        say(f"{output}: {output.stat().st_size:,} bytes; open it in a browser")


def _shown(result: Report | Verdict, output: Path | None, about: About, as_json: bool) -> None:
    """The page, if one is wanted; the numbers as JSON, or the view on the terminal where there is no page."""
    if output is not None:
        from photopic.core.runs import write_atomically
        from photopic.report.html import page

        write_atomically(output, page(about.view(result) if about.view else result).encode())
    if as_json:
        say(json_text(result.to_dict()))
    elif output is None and about.view is not None:
        from photopic.report.terminal import show

        show(about.view(result))


def _map(found: Map, output: Path, about: About, as_json: bool) -> None:
    from photopic.report.pictures import write_map

    for line in write_map(found, output):
        say(line)


def _saved(model: Any, output: Path, about: About, as_json: bool) -> None:
    """A model in its folder, or what is one file."""
    model.save(output)
    if about.view is not None:
        from photopic.report.terminal import show

        show(about.view(model))
    files = [each for each in (output, *output.rglob("*")) if each.is_file()]
    say(f"{output}: {sum(each.stat().st_size for each in files):,} bytes")


def _verdict(verdict: Verdict, output: Path | None, about: About, as_json: bool) -> None:
    _shown(verdict, output, about, as_json)
    if not as_json:
        say(("accepted: " if verdict.accepted else "rejected: ") + verdict.reason)
    if not verdict.accepted:
        raise typer.Exit(REJECTED)


def json_text(value: Any) -> str:
    """JSON as every reader takes it."""
    return json.dumps(finite(value), indent=1, sort_keys=True, allow_nan=False)
