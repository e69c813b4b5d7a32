"""``photopic diff``: how two edit files differ, entry by entry.

photopic diff before.edit after.edit && echo the same
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic.report.terminal import plain, table, words

if TYPE_CHECKING:
    from photopic.core.results import Report

EPILOG = "Example: photopic diff bear.edit bear-tuned.edit    For a program: photopic diff a.edit b.edit --json"
DIFFERENT = 1


def diff(
    a: Annotated[Path, typer.Argument(help="An edit file.")],
    b: Annotated[Path, typer.Argument(help="The edit file to compare it with.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON on stdout and nothing else.")
    ] = False,
) -> None:
    """Show how two edit files differ: base, words, and entries of every tensor.

    Of the entries in both it says how many come out equal, and how many have opposite signs.
    The Jaccard index (entries in both, of those in either) stands beside what chance would give.
    Leaves with status 0 if both do the same, 1 if not, 2 on trouble. No model is loaded.
    """
    from photopic.core.edits.file import load
    from photopic.edit.diff import compare

    report = compare(load(a), load(b))
    if as_json:
        typer.echo(json.dumps({"files": [a.name, b.name]} | report.to_dict(), indent=1, sort_keys=True))
    else:
        _print(a.name, b.name, report)
    if not report.values["identical"]:
        raise typer.Exit(DIFFERENT)


def _print(a: str, b: str, report: Report) -> None:
    from rich.console import Console

    console, values = Console(highlight=False), report.values
    verdict = "do the same" if values["identical"] else "differ"
    found = "" if values["same_provenance"] else ", and were found in different ways"
    console.print(f"[bold]{plain(a)}[/] (a) and [bold]{plain(b)}[/] (b) {verdict}{found}")
    if values["same_base"]:
        console.print(f"both for {plain(values['bases'][0])}")
    else:
        one, other = map(plain, values["bases"])
        console.print(f"for different bases: {one} and {other}: {plain(values['base_difference'])}")
    if values["tokens"] != [[], []]:
        shown = [" ".join(tokens) or "none" for tokens in values["tokens"]]
        console.print(f"words: {plain(shown[0])} (a), {plain(shown[1])} (b)")
    console.print(_entries(report))
    console.print("equal, not: what entries in both become; signs: those with opposite signs")
    console.print("chance: the Jaccard index of two sets of these sizes drawn at random")


def _entries(report: Report) -> Any:
    from photopic.core.nn.layer_names import place

    columns = (">only a", ">only b", ">equal", ">not", ">Jaccard", ">chance", ">signs")
    made = table("Entries", "where", *columns)
    keys = ("only_a", "only_b", "equal", "different", "jaccard", "jaccard_by_chance", "sign_conflicts")
    for row in report.rows:
        where = place(row["name"]) if row["kind"] == "weights" else (row["kind"], row["name"])
        made.add_row(plain(" ".join(where).strip()), *(_cell(row[key]) for key in keys))
    if len(report.rows) > 1:
        made.add_section()
        made.add_row("all", *(_cell(report.values[key]) for key in keys))
    return made


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if value is not None else words(value)
