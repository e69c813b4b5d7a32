"""The help teaches: every option of every command is explained, and every command shows an example."""

from __future__ import annotations

import subprocess
import sys
import warnings

import click
import pytest
from typer.testing import CliRunner

from photopic.cli import main
from photopic.cli.main import BY_HAND, SHORT, VERBS, lines, load_command

SHORT_OF = {command: verb for verb, command in SHORT.items()}
COMMANDS = [f"{verb} {name}".strip() for verb in VERBS for name in lines(verb) or [""]]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_explained_and_there_is_an_example(words: str) -> None:
    command = load_command(words)
    assert command.help and "Example: photopic " + SHORT_OF.get(words, words) in (command.epilog or "")
    for parameter in command.params:
        assert (getattr(parameter, "help", None) or "").strip(), f"{words}: {parameter.name} is not explained"


def test_no_command_file_imports_torch() -> None:
    modules = ", ".join(f"photopic.cli.{words.replace(' ', '_')}" for words in BY_HAND)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.filterwarnings("default")
def test_warnings_are_notes_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def reading() -> None:
        warnings.warn("photos: passed over \x1b[31m.md", stacklevel=1)

    monkeypatch.setattr(main, "load_command", lambda words: reading)
    result = CliRunner().invoke(main.app, ["generate"])
    assert result.stderr == "note: photos: passed over ?[31m.md\n" and result.exit_code == 0
