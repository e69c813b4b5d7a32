"""``photopic verify``: whether an edit does to a model what it says, and nothing else.

photopic verify bear.edit emoji-diffusion
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photopic.report.terminal import plain, table

if TYPE_CHECKING:
    from photopic.edit.verify import Check

EPILOG = "Example: photopic verify bear.edit emoji-diffusion    For a program: photopic verify bear.edit ./model --json"
FAILED = 1


def verify(
    edit: Annotated[Path, typer.Argument(help="An edit file.")],
    model: Annotated[
        str, typer.Argument(help="A bundled model, a folder with a diffusers pipeline, or a hub id.")
    ] = "emoji-diffusion",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="the fastest there is")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON on stdout and nothing else.")
    ] = False,
) -> None:
    """Apply an edit to a model, check every tensor, revert it and compare the model with itself before.

    Every entry the edit touches must hold what the edit says, every other byte must be the base's, and after reverting all must.
    The model's files are only read.
    Leaves with status 0 if every check holds, 1 if one fails, 2 on trouble, such as an edit made for another model.
    """
    import photopic
    from photopic.core.edits.file import load
    from photopic.core.errors import EditError
    from photopic.edit.verify import verify_events
    from photopic.report.progress import console

    loaded = load(edit)
    with console().status(f"loading {model}") as status:
        handle = photopic.load(model, device=device)
        checks: list[Check] = []
        try:
            for check in verify_events(loaded, handle.edits):
                checks.append(check)
                status.update(f"{handle.name}: {check.name}")
        except EditError as error:
            raise EditError(f"{edit.name}: {error}") from None
    if as_json:
        found = {"edit": edit.name, "model": handle.name, "checks": [asdict(check) for check in checks]}
        typer.echo(json.dumps(found | {"accepted": all(check.passed for check in checks)}, indent=1, sort_keys=True))
    else:
        _print(f"{edit.name} on {handle.name}", checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(FAILED)


def _print(title: str, checks: Iterable[Check]) -> None:
    from rich.console import Console

    made = table(plain(title), "check", "", "found")
    for check in checks:
        made.add_row(check.name, "[green]ok[/]" if check.passed else "[red]failed[/]", plain(check.detail))
    Console(highlight=False).print(made)
