"""Where commands write and what they say: nothing is lost to another run, nothing hides a library, nothing steers a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from photopic.cli import outputs, places
from photopic.cli.places import method_run, put
from photopic.cli.says import say, say_json
from photopic.core.errors import DataError, PhotopicError
from photopic.core.results import Report
from photopic.core.runs import CHECKPOINT, LOG, Run, RunInUseError
from photopic.core.view import Bars, Section, Table, View
from photopic.data.pictures import write_next
from photopic.report.progress import bars
from photopic.report.terminal import show

STEERING = "\x1b[2J\x9b31m\u202e[/]\r\x7f\nend"  # escapes, text from right to left, console markup, another line


def test_two_runs_into_one_folder_keep_all_pictures(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda each: write_next(tmp_path, str(each).encode()), range(64)))
    assert sorted(numbers) == list(range(1, 65))
    assert sorted(int(path.read_text()) for path in tmp_path.iterdir()) == list(range(64))


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def save(path: Path) -> None:
        path.write_text("ours")
        (tmp_path / "x.edit").write_text("theirs")  # as another process does while this one computes

    place = put(save, tmp_path / "x.edit", overwrite=False)
    assert place.name == "x-2.edit" and place.read_text() == "ours" and (tmp_path / "x.edit").read_text() == "theirs"
    assert "x.edit is there by now and stays" in capsys.readouterr().err
    assert put(save, tmp_path / "x.edit", overwrite=True).read_text() == "ours"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-2.edit", "x.edit"]


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space"):
        put(half, tmp_path / "x.edit", overwrite=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["typer.py", "typer/__init__.py"])
def test_a_file_or_folder_called_like_a_library_does_not_hide_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('taken for the library')")
    (tmp_path / "pandas").mkdir()  # as the README calls its pictures; no library that is installed here
    code = [sys.executable, "-m", "photopic", "--version"]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)}
    done = subprocess.run(code, cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("photopic "), done.stderr


def test_text_of_a_file_never_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(STEERING)
    assert capsys.readouterr().out == "?[2J?31m?[/]???end\n"
    sections = [Section(STEERING, [Table([STEERING], [[STEERING]]), Bars([(STEERING, 0.5, STEERING)])])]
    show(View("", sections, lead=STEERING))
    shown = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert shown.count("[/]???end") == 7  # none of them ends a line where its own text says so


def test_json_is_json_whatever_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"a": float("nan"), "b": [float("-inf"), 1.5], "c": STEERING})
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": STEERING}
    assert text.isascii() and all(letter.isprintable() or letter == "\n" for letter in text)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (CHECKPOINT, "run the same command again to go on"),
        ("measured/zero-shot-1-0.json", "run the same command again to go on"),  # as measure fewshot keeps its cells
        (LOG, "nothing was kept yet, the same command begins anew"),
    ],
)
def test_an_interrupt_says_whether_there_is_something_to_go_on_from(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a.edit.run" / name
    with pytest.raises(typer.Exit), method_run(None, tmp_path / "a.edit"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("")
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"photopic: interrupted; {said}\n"
    assert place.exists() == (name != LOG)
    assert list(tmp_path.iterdir()) == ([] if name == LOG else [tmp_path / "a.edit.run"])


@pytest.mark.parametrize("refused", [RunInUseError, DataError])
def test_a_refused_command_leaves_the_run_of_another(tmp_path: Path, refused: type[PhotopicError]) -> None:
    first = Run(tmp_path / "a.edit.run")
    with first.held(), pytest.raises(refused), method_run(None, tmp_path / "a.edit"):
        raise refused("refused")
    assert (first.folder / "lock").exists()
    with pytest.raises(refused), method_run(None, tmp_path / "b.edit") as run:
        assert run is not None
        raise refused("refused")
    assert (tmp_path / "b.edit.run").exists() == (refused is RunInUseError)


def test_a_report_is_a_page_or_its_numbers_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"result": "Report", "page": True, "parameters": []}
    with pytest.raises(
        PhotopicError, match=r"r\.png: expected a page \(\.html\) or its numbers \(\.json\), found \.png"
    ):
        places.checked(entry, "measure x", {"output": str(tmp_path / "r.png")})
    about: Any = SimpleNamespace(view=None, after=(), failed=None)
    for name in ("r.html", "r.json"):
        place = places.checked(entry, "measure x", {"output": str(tmp_path / name)})
        outputs.write(Report("x", {"share": 0.5, "none": float("nan")}), outputs.Wanted(place, about, False, False))
    assert json.loads((tmp_path / "r.json").read_text())["values"] == {"share": 0.5, "none": None}
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert "r.json: 1" in (said := capsys.readouterr().out) and said.count("open it in a browser") == 1


def test_of_several_processes_one_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    for hidden, said in ((False, "note: careful\n"), (True, "")):
        with bars(hidden=hidden):
            warnings.simplefilter("always")  # and not an error, as in other tests
            warnings.warn("careful", stacklevel=1)
        assert capsys.readouterr().err == said
