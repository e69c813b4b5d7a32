"""What a command says: lines that a terminal only shows, JSON that every reader takes, and its exit status."""

from __future__ import annotations

import json
from typing import Any

import typer

from photopic.core.errors import printable
from photopic.core.files import finite

REJECTED = 1
USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def say(line: str, *, err: bool = False) -> None:
    """Print one line that may hold words of files and their names, on stdout or stderr: a terminal only ever shows it."""
    typer.echo(printable(line), err=err)


def say_json(value: Any) -> None:
    """Print a value as JSON that every reader takes; it escapes by itself what would steer a terminal."""
    typer.echo(json_text(value))


def json_text(value: Any) -> str:
    """A value as JSON that every reader takes."""
    return json.dumps(finite(value), indent=1, sort_keys=True, allow_nan=False)
