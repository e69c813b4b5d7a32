"""Where a command writes: checked before anything takes time, and taken only at the end, from nobody who has it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from photopic.cli.says import INTERRUPTED, say
from photopic.core.errors import PhotopicError
from photopic.core.files import claim

if TYPE_CHECKING:
    from photopic.core.runs import Run

PAGES = {".html", ".htm", ".json", ""}  # what a report's file may end in: a page, or its numbers
DEFAULTS = {"Map": "out", "File": "guard.safetensors"}


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
    if given.get("run"):
        check_folder(given["run"])
    if output is None and result == "Report" and entry["page"]:
        model = Path(str(given.get("model", command.partition(" ")[0]))).name
        output = Path(f"{model}-{command.rpartition(' ')[2]}.html")
    output = Path(DEFAULTS[result]) if output is None and result in DEFAULTS else output
    if (
        output is not None
        and result in ("Report", "Verdict")
        and not _is_own(entry)
        and output.suffix.lower() not in PAGES
    ):
        raise PhotopicError(
            f"{output}: expected a page (.html) or its numbers (.json), found {output.suffix}; name one of these"
        )
    if output is not None and result == "Model" and output.exists() and not given.get("overwrite", False):
        raise PhotopicError(f"{output}: expected a new folder name, found one; choose another or add --overwrite")
    if output is not None and result in ("Map", "Model", "Edits"):
        check_folder(output)
    elif output is not None and not (_is_own(entry) and output.is_dir()):  # a folder is for the method to judge
        check_output(output, overwrite=given.get("overwrite", False))
        for each in entry["parameters"]:
            words = given.get(each["name"], []) if each["role"] == "edit" else []
            for read in map(Path, [words] if isinstance(words, str) else words):
                if output.exists() and read.exists() and output.samefile(read):
                    raise PhotopicError(f"{output}: is one of the edits to read; choose another --output")
    return output


def _is_own(entry: Mapping[str, Any]) -> bool:
    """Whether a method writes its output itself."""
    return any(each["name"] == "output" for each in entry["parameters"])


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a file that exists, a folder in its place, or a folder that cannot be written to, before anything takes time.

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
    _check_writable(output.absolute().parent, output)


def check_folder(output: Path) -> None:
    """Refuse a folder that cannot be made or written to, before anything takes time; nothing is made yet.

    Raises:
        PhotopicError: Names the folder and what to do.
    """
    there = next(each for each in (output.absolute(), *output.absolute().parents) if each.exists())
    if not there.is_dir():
        raise PhotopicError(f"{output}: expected a folder, found the file {there.name}; choose another name")
    _check_writable(there, output)


def _check_writable(folder: Path, output: Path) -> None:
    """By writing: the rights of a folder alone say nothing of a full disk or a file system of the kernel."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        raise PhotopicError(f"{output}: cannot be written here ({problem}); choose another folder") from error


@contextmanager
def method_run(run: Path | None, output: Path | None, *, wanted: bool = True) -> Iterator[Run | None]:
    """The folder for log and checkpoints: the user's, or one beside the output that goes once that is written.

    Ctrl-C leaves with status 130. It and a refusal leave no folder unless there is something in it to go on from.
    """
    if not wanted or (run is None and output is None):
        yield None
        return
    from photopic.core.runs import Run, RunInUseError, is_first_process

    folder = run or output.with_name(output.name + ".run")  # type: ignore[union-attr]
    try:
        yield Run(folder)
    except KeyboardInterrupt:
        say_interrupted(folder)
        if run is None:
            _drop_empty(folder)
        raise typer.Exit(INTERRUPTED) from None
    except RunInUseError:
        raise
    except Exception:
        if run is None:
            _drop_empty(folder)
        raise
    if run is None and is_first_process():
        shutil.rmtree(folder, ignore_errors=True)


def say_interrupted(folder: Path) -> None:
    """Say how to go on after Ctrl-C, or that there is nothing to go on from."""
    from photopic.core.runs import goes_on

    begin = "run the same command again to go on"
    if not goes_on(folder):
        begin = "nothing was kept yet, the same command begins anew"
    say(f"photopic: interrupted; {begin}", err=True)


def _drop_empty(folder: Path) -> None:
    """Take a run folder away that holds nothing to go on from, unless another process is in it before its first checkpoint."""
    from photopic.core.runs import Run, RunInUseError, goes_on

    with suppress(RunInUseError, FileNotFoundError):
        if not goes_on(folder):
            with Run(folder).held():
                shutil.rmtree(folder, ignore_errors=True)


def put(save: Callable[[Path], object], output: Path, *, overwrite: bool) -> Path:
    """Write a file or folder beside its place and move it there, whole.

    Args:
        save: Writes to the path it is given.
        output: The place. Where another process took it meanwhile its file stays, and this one goes to the next free name.
        overwrite: Replace what is there.

    Returns:
        Where it is.
    """
    temporary = output.with_name(f"{os.getpid()}-{output.name}")  # the ending stays, which may say what is written
    try:
        save(temporary)
        if temporary.is_dir():
            if output.exists() and overwrite:
                shutil.rmtree(output)
            temporary.rename(output)  # refused where a folder with something in it is there
            return output
        place = output if overwrite else _claimed(output)
        os.replace(temporary, place)
        return place
    finally:
        temporary.unlink(missing_ok=True) if not temporary.is_dir() else shutil.rmtree(temporary)


def _claimed(output: Path) -> Path:
    """The name itself, or ``bear-2.edit`` where another process has it by now."""
    for number in itertools.count(1):
        place = output if number == 1 else output.with_stem(f"{output.stem}-{number}")
        try:
            claim(place)
            break
        except FileExistsError:
            continue
    if place != output:
        say(f"note: {output} is there by now and stays; this is {place.name}", err=True)
    return place
