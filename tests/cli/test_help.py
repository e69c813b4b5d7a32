"""The help teaches: every option of every command is explained, and every command shows an example."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import click
import pytest

from photopic.cli.main import SHORT, VERBS, load_verb

SHORT_OF = {command: verb for verb, command in SHORT.items()}


def commands() -> list[tuple[str, click.Command]]:
    found = []
    for verb in VERBS:
        command = load_verb(verb)
        inner = getattr(command, "commands", {})
        found += [(f"{verb} {name}", each) for name, each in inner.items()] or [(verb, command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_option_is_explained_and_there_is_an_example(name: str, command: click.Command) -> None:
    assert command.help and "Example: photopic " + SHORT_OF.get(name, name) in (command.epilog or "")
    for parameter in command.params:
        assert (getattr(parameter, "help", None) or "").strip(), f"{name}: {parameter.name} is not explained"


def test_no_command_file_imports_torch() -> None:
    modules = ", ".join(f"photopic.cli.{verb}" for verb in VERBS if find_spec(f"photopic.cli.{verb}"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
