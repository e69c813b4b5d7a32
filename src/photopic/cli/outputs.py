"""What commands that make an edit have in common: a place for the file, and a run folder to go on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from photopic.cli.main import INTERRUPTED
from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.core.results import Report


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a file that exists, or a folder that does not, before anything takes time.

    Raises:
        PhotopicError: Names the file and what to do.
    """
    if output.exists() and not overwrite:
        raise PhotopicError(f"{output}: expected a new file name, found a file; choose another name or add --overwrite")
    if not output.absolute().parent.is_dir():
        raise PhotopicError(
            f"{output}: expected an existing folder to write into, found none; create {output.parent} first"
        )


def write_report(output: Path, page: str, report: Report, *, as_json: bool) -> None:
    """Write the page of a report; print where it is, or with ``as_json`` all numbers and nothing else."""
    from photopic.core.runs import write_atomically

    write_atomically(output, page.encode())
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1, sort_keys=True))
    else:
        typer.echo(f"{output}: {output.stat().st_size:,} bytes; open it in a browser")


@contextmanager
def run_folder(run: Path | None, output: Path, *, done: str = "checkpoint.safetensors") -> Iterator[Path]:
    """The folder for log and checkpoints: the user's, or one beside the output that goes once that is written.

    Ctrl-C leaves with status 130 and the folder; a refusal leaves no folder unless there is something in it to go on from, a file
    that the pattern ``done`` matches.
    """
    folder = run or output.with_name(output.name + ".run")
    try:
        yield folder
    except KeyboardInterrupt:
        typer.echo("photopic: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except PhotopicError:
        if run is None and not list(folder.rglob(done)):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if run is None:
        shutil.rmtree(folder, ignore_errors=True)
