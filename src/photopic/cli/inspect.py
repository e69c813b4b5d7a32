"""``photopic inspect``: what an edit file changes, how it was found and what it costs.

photopic inspect bear.edit
photopic inspect bear.edit --json | jq .values.share
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.core.results import Report

EPILOG = "Example: photopic inspect bear.edit    For a program: photopic inspect bear.edit --json"
BAR = 28  # characters of a full bar
SHOWN = ("method", "noun", "token", "prompt", "images", "seed", "steps", "data", "device", "elapsed_s")


def inspect(
    edit: Annotated[Path, typer.Argument(help="An edit file, as photopic locate writes it.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON on stdout and nothing else.")
    ] = False,
) -> None:
    """Show what an edit file changes, how it was found and what it costs.

    No model is loaded.
    """
    from photopic.core.editfile import load
    from photopic.measure.edit_contents import edit_contents

    loaded = load(edit)
    report = edit_contents(loaded)
    if as_json:
        content = edit.read_bytes()
        described = report.to_dict() | {
            "file": {"name": edit.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
            "base": {"name": loaded.base.name, "digest": loaded.base.digest},
        }
        typer.echo(json.dumps(described, indent=1, sort_keys=True))
        return
    _print(edit, loaded, report)


def _print(path: Path, edit: Edit, report: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    values = report.values
    console.print(
        f"[bold]{_plain(path.name)}[/]  {path.stat().st_size:,} bytes, "
        f"for {_plain(edit.base.name)} ({edit.base.digest[:12]})"
    )
    if values["changed"]:
        kinds = " and ".join(values["kinds"])
        console.print(f"{values['changed']:,} of {values['entries']:,} weights ({values['share']:.2%}): {kinds}")
    if values["tokens"]:
        words = " ".join(values["tokens"])
        said = f"{values['tokens'][0]} {edit.provenance.get('noun', '')}".strip()
        console.print(f"new word {_plain(words)}; say it before the noun: {_plain(said)}")
    if report.rows:
        console.print(_layers(report), _blocks(report), sep="\n")
    console.print(_sizes(path, values), _found(edit.provenance), sep="\n")


def _table(title: str, *columns: tuple[str, str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def _layers(report: Report) -> Any:
    columns = [(name, "left") for name in ("block", "layer", "weights")]
    columns += [(name, "right") for name in ("entries", "changed", "share", "bytes")]
    table = _table("Layers", *columns)
    for row in report.rows:
        shape = "x".join(map(str, row["shape"]))
        table.add_row(
            _plain(row["block"]),
            _plain(row["layer"]),
            f"{row['projection']} {shape}".strip(),
            f"{row['entries']:,}",
            f"{row['changed']:,}",
            f"{row['share']:.2%}",
            f"{row['index_bytes']:,}",
        )
    return table


def _blocks(report: Report) -> Any:
    from photopic.measure.edit_contents import by_block

    blocks = by_block(report)
    most = max(changed / entries for changed, entries in blocks.values())
    table = _table("Blocks, share changed", ("block", "left"), ("", "left"), ("share", "right"))
    for block, (changed, entries) in blocks.items():
        share = changed / entries
        table.add_row(_plain(block), "█" * max(1, round(BAR * share / most)), f"{share:.2%}")
    return table


def _sizes(path: Path, values: Any) -> Any:
    table = _table("Bytes", ("", "left"), ("bytes", "right"), ("", "left"))
    table.add_row("file", f"{path.stat().st_size:,}", "")
    if values["changed"]:
        ratio = values["index_bytes"] / values["entropy_bytes"] if values["entropy_bytes"] else 1.0
        table.add_row("positions", f"{values['index_bytes']:,}", "as coded in the file")
        table.add_row(
            "  as int32", f"{values['int32_bytes']:,}", f"{values['int32_bytes'] / values['index_bytes']:.1f} x"
        )
        table.add_row(
            "  entropy", f"{values['entropy_bytes']:,}", f"coded is {ratio:.3f} x the bound for independent entries"
        )
    if values["value_bytes"]:
        table.add_row("values", f"{values['value_bytes']:,}", "")
    if values["token_bytes"]:
        table.add_row("new words", f"{values['token_bytes']:,}", "embedding rows")
    return table


def _found(provenance: Any) -> Any:
    table = _table("How it was found", ("", "left"), ("", "left"))
    for key in SHOWN:
        if provenance.get(key) is not None:
            table.add_row(key, _plain(str(provenance[key])))
    for group in ("config", "versions"):
        if provenance.get(group):
            settings = ", ".join(f"{key}={value}" for key, value in provenance[group].items())
            table.add_row(group, _plain(settings))
    losses = provenance.get("losses") or {}
    for moment in ("before", "after"):
        if losses.get(moment):
            table.add_row(f"loss {moment}", ", ".join(f"{key} {value:.4f}" for key, value in losses[moment].items()))
    if provenance.get("warning"):
        table.add_row("warning", _plain(str(provenance["warning"])))
    return table


def _plain(text: str) -> str:
    """Text of a file as text: no console markup, no control characters."""
    from rich.markup import escape

    return escape("".join(letter if letter.isprintable() else "?" for letter in text))
