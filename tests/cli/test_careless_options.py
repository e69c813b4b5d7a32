"""Careless words for every option of every command: one line on stderr, status 2, nothing written, no time lost.

The table is made from the options themselves, so a new command is in it. The runs are in this process; a few are in one of their
own. A value that its option cannot take has to be refused before the model is asked for, so the model of every run is none.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from photopic.calls.methods import read_manifest
from photopic.cli import main
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits.file import save
from photopic.core.errors import DataError
from photopic.core.identity import Fingerprint

HUGE = "9" * 23
WRONG = {  # what no option of a type takes
    int: ("x", "1.5", "", "nan", HUGE, "-" + HUGE),
    float: ("x", "", "nan", "inf", "-inf", "1e999"),
    str: ("",),
    bool: (),
    Path: ("", " "),
    Literal: ("no such word", ""),
}
NOWHERE = ("file/x", "/proc/nope/x", "/proc/x")  # nothing can be written there, not even by root
WRITTEN = {"output", "out", "run"}
READ = {"edits": ("missing", "folder", "binary"), "image": ("missing", "folder", "binary"), "guard": ("missing",)}
READ |= {"mask": READ["image"], "layout": READ["image"], "edit": READ["edits"], "pictures": ("missing",)}


def commands() -> list[str]:
    """Every command by its words, but for the short forms of some."""
    groups = [verb for verb in main.VERBS if verb not in main.BY_HAND and verb not in main.SHORT]
    return sorted({*main.BY_HAND, *(f"{verb} {name}" for verb in groups for name in main.lines(verb))})


@cache
def built(words: str) -> Any:
    return ORIGINAL(words)


ORIGINAL = main.load_command


def options(words: str) -> Iterator[tuple[Any, type, Any]]:
    """Each option and argument of a command, with its type, one of several values, and what typer knows of its range."""
    command = built(words)
    annotations = get_type_hints(command.callback, include_extras=True)
    for param in command.params:
        kind, info = get_args(annotations[param.name])
        kinds = [each for each in get_args(kind) if each is not NoneType] if NoneType in get_args(kind) else [kind]
        item = get_args(kinds[0])[0] if get_origin(kinds[0]) is list else kinds[0]
        yield param, item if item in WRONG else Literal, info


def careless(words: str) -> Iterator[tuple[str, list[str]]]:
    """(parameter, what to type for it) of everything that a command has to refuse."""
    result = read_manifest().get(words, {}).get("result", "")
    into_folder = result in ("Map", "Model", "Edits") or words in main.BY_HAND
    manifest = {each["name"]: each for each in _entries(words)}
    for param, kind, info in options(words):
        values = list(WRONG[kind])
        values += [] if info.min is None else [f"{kind(info.min - 1):g}"]
        values += [] if info.max is None else [f"{kind(info.max + 1):g}"]
        bounds = manifest.get(param.name, {})
        values += [f"{kind(bounds[name]):g}" for name in ("gt", "lt") if kind in (int, float) and name in bounds]
        if bounds.get("role") in ("edit", "data"):
            values += ["missing", "\x1b[31mmissing"]
        if bounds.get("role") == "model" or param.name == "model":
            values = ["", "no-such-model", "folder", "\x1b[2Jmissing"]
        if param.name in WRITTEN and kind is Path:
            values += [*NOWHERE, "file" if into_folder or param.name == "run" else "folder"]
        values += READ.get(param.name, ()) if kind is Path else ()
        values += ["gpu", "cuda:x", "cpu;", "\x1b[31m"] if param.name == "device" else []
        values += ["a photo", "{} and {}", "{} {name}"] if param.name in ("template", "templates") else []
        name = [param.opts[0]] if param.param_type_name == "option" else []
        yield from ((param.name, [*name, value]) for value in dict.fromkeys(values))
        if name and not param.multiple:
            once = name if kind is bool else [*name, {int: "1", float: "0.5"}.get(kind, "folder")]
            yield param.name, once * 2


def _entries(words: str) -> Iterator[dict[str, Any]]:
    for each in read_manifest().get(words, {}).get("parameters", ()):
        yield each
        yield from each.get("options", ())


def sensible(words: str) -> dict[str, list[str]]:
    """What has to be there besides a careless word: inputs that exist, a model that does not."""
    found: dict[str, list[str]] = {}
    roles = {each["name"]: each.get("role") for each in _entries(words)}
    choices = {each["name"]: each["choices"][0] for each in _entries(words) if "choices" in each}
    choices |= {each["name"]: "file" for each in _entries(words) if each.get("exists")}
    typed = {"edit": "good.edit", "data": "folder", "model": "no-such-model"}
    for param, kind, _ in options(words):
        word = choices.get(param.name, {int: "1", float: "0.5"}.get(kind, "word"))
        value = typed.get(roles.get(param.name) or "", word)
        value = {"guard": "file", "pictures": "folder"}.get(param.name, value)
        value = "fresh" if param.name == "output" else "no-such-model" if param.name == "model" else value
        if param.required or param.name == "model":
            found[param.name] = ([param.opts[0]] if param.param_type_name == "option" else []) + [value]
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file, a folder, an edit and bytes of no kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "load_command", built)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    base = Fingerprint("tiny", "0" * 64, {"unet.w": "00"}, {"unet.w": (2, 2)}, "00")
    save(Edit((ZeroedWeights({"unet.w": torch.arange(3)}),), base, {}), tmp_path / "good.edit")
    return tmp_path


def seen(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def fault_of(typed: list[str], folder: Path, *, asks_model: bool) -> str:
    """What is wrong with how a careless word was met, or nothing."""
    before, began = seen(folder), time.process_time()
    done = CliRunner().invoke(main.app, typed)
    spent, lines = time.process_time() - began, [line for line in done.stderr.splitlines() if line.strip()]
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"traceback: {done.exception!r}"
    if done.exit_code != 2 or len(lines) != 1 or not lines[0].startswith("photopic: ") or done.stdout:
        return f"status {done.exit_code}: {lines[:3]} {done.stdout[:80]!r}"
    if not lines[0].isprintable() or " at 0x" in lines[0]:
        return f"steers the terminal, or names an address: {lines[0]!r}"
    if seen(folder) != before:
        return f"left {seen(folder) - before}"
    if "no-such-model" in lines[0] and not asks_model:
        return "is only refused when the model is asked for"
    return f"took {spent:.1f} s" if spent > 1 else ""


@pytest.mark.parametrize("words", commands())
def test_a_careless_word_is_one_line(words: str, place: Path) -> None:
    base, faults = sensible(words), []
    models = {"model", *(each["name"] for each in _entries(words) if each.get("role") == "model")}
    CliRunner().invoke(main.app, [*words.split(), *chain.from_iterable(base.values())])  # imports what it needs
    for name, case in careless(words):
        typed = [*words.split(), *chain.from_iterable((base | {name: case}).values())]  # in the order of the arguments
        fault = fault_of(typed, place, asks_model=name in models)
        if fault:
            faults.append(f"{case}: {fault}")
    assert not faults, "\n".join(faults)


def test_what_is_not_there_is_told_before_anything_heavy_is_imported(place: Path) -> None:
    asked = []
    for words in commands():
        base, entries = sensible(words), {each["name"]: each for each in _entries(words)}
        for param, kind, _ in options(words):
            entry = entries.get(param.name, {})
            if entry.get("role") in ("edit", "data") or entry.get("exists") or (kind is Path and param.name in READ):
                name = [param.opts[0]] if param.param_type_name == "option" else []
                asked.append([*words.split(), *chain.from_iterable((base | {param.name: [*name, "missing"]}).values())])
    code = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom photopic.cli.main import app\n"
        "for typed in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, typed)\n"
        "    if done.exit_code != 2 or 'missing: expected' not in done.stderr or 'torch' in sys.modules:\n"
        "        sys.exit(f'{typed}: {done.output}{done.exception}')"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(asked) > 35


def take_memory_of_numpy() -> None:
    np.empty(2**50, np.uint8)


def take_memory_and_say_something_else() -> None:
    try:
        bytearray(2**60)
    except MemoryError as error:
        raise DataError("a.png: expected a picture, found a damaged file") from error


def take_memory_of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")  # as torch does where there is one


@pytest.mark.parametrize(
    "take",
    [
        lambda: torch.empty(2**50, dtype=torch.uint8),
        take_memory_of_numpy,
        take_memory_and_say_something_else,
        take_memory_of_a_gpu,
    ],
)
def test_running_out_of_memory_is_one_line_that_says_what_to_make_smaller(
    take: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(batch: Annotated[int, typer.Option()] = 1, layers: Annotated[int, typer.Option()] = 1) -> None:
        take()

    monkeypatch.setattr(main, "load_command", lambda words: main._built("generate", generate, None, ""))
    done = CliRunner().invoke(main.app, ["generate"])
    assert done.stderr == "photopic: memory ran out; lower --batch, give smaller pictures or a smaller model\n"
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tune", "mask", "folder", "-o", "x.edit", "--shots", "0"], "--shots"),
        (["measure", "rank", "no-such", "folder", "--device", "gpu"], "--device"),
        (["generate", "a bear", "--seed", HUGE], "--seed"),
        (["generate", "a bear", "--steps", "2", "--steps", "3"], "expected once, found 2 times"),
        (["locate", "neurons", "folder", "--noun", "bear", "-o", ""], "--output"),
        (["compose", "good.edit", "missing.edit", "-o", "x.edit"], "missing.edit: expected a file, found nothing"),
    ],
)
def test_a_careless_word_in_a_process_of_its_own(words: list[str], said: str, place: Path) -> None:
    before, used = seen(place), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-m", "photopic", *words], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout and seen(place) == before
    assert done.stderr.startswith("photopic: ") and done.stderr.count("\n") == 1 and said in done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used < 1  # seconds; 0.25 measured
