"""``photopic inspect``: what an edit file changes, how it was found and what it costs.

photopic inspect bear.edit
photopic inspect bear.edit --json | jq .values.share
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic.cli.layers import by_block, place

if TYPE_CHECKING:
    from photopic.core.describe import Description

EPILOG = "Example: photopic inspect bear.edit    For a program: photopic inspect bear.edit --json"
BAR = 28  # characters of a full bar
SHOWN = (  # of the provenance, in this order
    "method noun token prompt images seed steps config losses warning data versions device dtype elapsed_s peak_bytes"
).split()


def inspect(
    edit: Annotated[Path, typer.Argument(help="An edit file, as photopic locate writes it.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON on stdout and nothing else.")
    ] = False,
) -> None:
    """Show what an edit file changes, how it was found and what it costs.

    No model is loaded.
    """
    from photopic.core.describe import describe
    from photopic.core.editfile import load

    description = describe(load(edit))
    if as_json:
        content = edit.read_bytes()
        file = {"name": edit.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        typer.echo(json.dumps(description.to_dict() | {"file": file}, indent=1, sort_keys=True))
        return
    _print(edit, description)


def _print(path: Path, edit: Description) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    base = f"for {_plain(edit.base_name)} ({edit.base_digest[:12]})"
    console.print(f"[bold]{_plain(path.name)}[/]  {path.stat().st_size:,} bytes, {base}")
    if edit.count:
        kinds = " and ".join(sorted({row.kind for row in edit.tensors if row.kind != "token"}))
        console.print(f"{edit.count:,} of {edit.size:,} weights ({edit.density:.2%}): {kinds}")
    if edit.tokens:
        said = f"{edit.tokens[0]} {edit.provenance.get('noun', '')}".strip()
        console.print(f"new word {_plain(' '.join(edit.tokens))}; say it before the noun: {_plain(said)}")
    if edit.count:
        console.print(_layers(edit), _blocks(edit), sep="\n")
    console.print(_sizes(path, edit), _found(edit.provenance), sep="\n")


def _table(title: str, *columns: tuple[str, str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def _layers(edit: Description) -> Any:
    columns = [(name, "left") for name in ("block", "layer", "weights")]
    columns += [(name, "right") for name in ("changed", "share", "bytes")]
    table = _table("Layers", *columns)
    for row in edit.tensors:
        if row.kind != "token":
            block, layer, projection = place(row.name)
            weights = f"{projection} {'x'.join(map(str, row.shape))}".strip()
            cells = (weights, f"{row.count:,}", f"{row.density:.2%}", f"{row.index_bytes + row.value_bytes:,}")
            table.add_row(_plain(block), _plain(layer), *cells)
    return table


def _blocks(edit: Description) -> Any:
    blocks = by_block(edit)
    most = max(changed / entries for changed, entries in blocks.values())
    table = _table("Blocks, share changed", ("block", "left"), ("", "left"), ("share", "right"))
    for block, (changed, entries) in blocks.items():
        share = changed / entries
        table.add_row(_plain(block), "█" * max(1, round(BAR * share / most)), f"{share:.2%}")
    return table


def _sizes(path: Path, edit: Description) -> Any:
    table = _table("Bytes", ("", "left"), ("bytes", "right"), ("", "left"))
    table.add_row("file", f"{path.stat().st_size:,}", "")
    if edit.count:
        times = f"{edit.naive_bytes / edit.index_bytes:.1f} x the coded ones"
        bound = f"coded is {edit.index_bytes / edit.entropy_bytes:.3f} x it" if edit.entropy_bytes else ""
        table.add_row("positions", f"{edit.index_bytes:,}", "as coded in the file")
        table.add_row("  as int32", f"{edit.naive_bytes:,}", times)
        table.add_row("  entropy bound", f"{edit.entropy_bytes:,.0f}", bound)
    values, rows = (sum(row.value_bytes for row in edit.tensors if (row.kind == "token") == token) for token in (0, 1))
    if values:
        table.add_row("values", f"{values:,}", "")
    if rows:
        table.add_row("new words", f"{rows:,}", "embedding rows")
    return table


def _found(provenance: Mapping[str, Any]) -> Any:
    table = _table("How it was found", ("", "left"), ("", "left"))
    for key in SHOWN:
        if provenance.get(key) not in (None, "", {}):
            table.add_row(key, _plain(_words(provenance[key])))
    return table


def _words(value: Any) -> str:
    """A JSON value as a person writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_words, value)) + "]"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Text of a file as text: no console markup, no control characters."""
    from rich.markup import escape

    return escape("".join(letter if letter.isprintable() else "?" for letter in text))
