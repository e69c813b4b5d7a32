"""``photopic inspect``: what an edit file changes, how it was found and what it costs.

photopic inspect bear.edit
photopic inspect bear.edit --json | jq .density
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic.report.terminal import bar, histogram, plain, table, words

if TYPE_CHECKING:
    from photopic.edit.inspect import BlockSum, Description, PartSummary

EPILOG = "Example: photopic inspect bear.edit    For a program: photopic inspect bear.edit --json"
SHOWN = (  # of the provenance, in this order; the rest is in --json
    "method noun token prompt images seed steps config losses overlap weights forced warning data versions device dtype "
    "elapsed_s peak_bytes"
).split()
LABEL = "method noun token seed overlap weights".split()  # of a parent, on its line of the tree


def inspect(
    edit: Annotated[Path, typer.Argument(help="An edit file, as photopic locate and photopic compose write it.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON on stdout and nothing else.")
    ] = False,
) -> None:
    """Show what an edit file changes, how it was found and what it costs.

    Layers, blocks, the distribution of its values, its bytes, and what a composition was made of.
    No model is loaded.
    """
    from photopic.core.edits.file import load
    from photopic.edit.inspect import describe

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
    base = f"for {plain(edit.base_name)} ({edit.base_digest[:12]})"
    console.print(f"[bold]{plain(path.name)}[/]  {path.stat().st_size:,} bytes, {base}")
    if edit.count:
        kinds = ", ".join(sorted({row.kind.replace("_", "-") for row in edit.tensors if row.changes_weights}))
        console.print(f"{edit.count:,} of {edit.size:,} weights ({edit.density:.2%}): {kinds}")
    for token in edit.tokens:
        said = f"{token} {_noun(edit.provenance, token)}".strip()
        console.print(f"new word {plain(token)}; say it before the noun: {plain(said)}")
    if edit.count:
        console.print(_layers(edit), _blocks(edit.blocks), sep="\n")
    if any(not row.changes_weights for row in edit.tensors):
        console.print(_added(edit))
    for number, part in enumerate(edit.parts):
        _print_values(console, number, part)
    console.print(_sizes(path, edit))
    if edit.provenance.get("parents"):
        console.print("[bold]Made of[/]")
        console.print(_tree(edit.provenance), "")
    console.print(_found(edit.provenance))


def _noun(provenance: Mapping[str, Any], token: str) -> str:
    """What a word was found for: said here, or by the parent that brought it."""
    parents = provenance.get("parents")
    if not isinstance(parents, list):
        return str(provenance.get("noun") or "")
    bringing = [
        each for each in parents if isinstance(each, dict) and ("parents" in each or each.get("token") == token)
    ]
    return next(filter(None, (_noun(each, token) for each in bringing)), "")


def _layers(edit: Description) -> Any:
    rows = [row for row in edit.tensors if row.changes_weights]
    adds = any(row.norm is not None for row in rows)
    made = table(
        "Layers",
        "block",
        "layer",
        "weights",
        "kind",
        ">changed",
        ">share",
        *([">norm"] if adds else []),
        ">bytes",
    )
    from photopic.core.nn.layer_names import place

    for row in rows:
        block, layer, projection = place(row.name)
        weights = f"{projection} {'x'.join(map(str, row.shape))}".strip()
        norm = [words(row.norm)] if adds else []
        made.add_row(
            plain(block), plain(layer), weights, row.kind.replace("_", "-"), f"{row.count:,}", f"{row.density:.2%}", *norm,
            f"{row.index_bytes + row.value_bytes:,}",
        )  # fmt: skip
    return made


def _blocks(blocks: Sequence[BlockSum]) -> Any:
    """Bars of what is added where every part adds, because then the share is often all of it; else of the share changed."""
    norms = [block.norm for block in blocks if block.norm is not None]
    if len(norms) == len(blocks):
        made, sizes, shown = table("Blocks, norm added", "block", "", ">norm"), norms, "{:.5g}"
    else:
        made, shown = table("Blocks, share changed", "block", "", ">share"), "{:.2%}"
        sizes = [block.count / block.size for block in blocks]
    most = max(sizes) or 1.0
    for block, size in zip(blocks, sizes, strict=True):
        made.add_row(plain(block.name), bar(size / most), shown.format(size))
    return made


def _added(edit: Description) -> Any:
    made = table("Added", "kind", "where", "shape", ">bytes")
    for row in edit.tensors:
        if not row.changes_weights:
            made.add_row(row.kind, plain(row.name), "x".join(map(str, row.shape)), f"{row.value_bytes:,}")
    return made


def _print_values(console: Any, number: int, part: PartSummary) -> None:
    values = part.values
    if values is None:
        return
    kind = ", ".join(filter(None, (part.kind.replace("_", "-"), part.detail)))
    console.print(f"[bold]Values of part {number}[/]: {plain(kind)}")
    console.print(
        f"{values.count:,} numbers, mean {values.mean:.3g}, standard deviation {values.std:.3g}, "
        f"{values.minimum:.3g} to {values.maximum:.3g}, {values.zeros:,} zero"
    )
    low, high = f"{values.edges[0]:.3g}", f"{values.edges[-1]:.3g}"
    width = 2 * len(values.counts)
    console.print(*histogram(values.counts), sep="\n")
    console.print("─" * (width // 2) + "┼" + "─" * (width // 2 - 1))
    console.print(low + "0".center(width - len(low) - len(high)) + high, end="\n\n")


def _sizes(path: Path, edit: Description) -> Any:
    made = table("Bytes", "", ">bytes", "")
    made.add_row("file", f"{path.stat().st_size:,}", "")
    if edit.index_bytes:
        times = f"{edit.naive_bytes / edit.index_bytes:.1f} x the coded ones"
        bound = f"coded is {edit.index_bytes / edit.entropy_bytes:.3f} x it" if edit.entropy_bytes else ""
        made.add_row("positions", f"{edit.index_bytes:,}", "as coded in the file")
        made.add_row("  as int32", f"{edit.naive_bytes:,}", times)
        made.add_row("  entropy bound", f"{edit.entropy_bytes:,.0f}", bound)
    for kind in dict.fromkeys(row.kind for row in edit.tensors):
        held = sum(row.value_bytes for row in edit.tensors if row.kind == kind)
        if held:
            label = {"token": ("new words", "embedding rows")}.get(kind, (kind.replace("_", "-"), ""))
            made.add_row(label[0], f"{held:,}", label[1])
    return made


def _tree(provenance: Mapping[str, Any], tree: Any = None) -> Any:
    """A composition as a tree of what it was made of."""
    from rich.tree import Tree

    named = [f"{key} {words(provenance[key])}" for key in LABEL[1:] if provenance.get(key) not in (None, "")]
    line = plain(", ".join([str(provenance.get("method", "unknown method")), *named]))
    node = Tree(line) if tree is None else tree.add(line)
    parents = provenance.get("parents")
    for parent in parents if isinstance(parents, list) else []:
        _tree(parent if isinstance(parent, dict) else {}, node)
    return node


def _found(provenance: Mapping[str, Any]) -> Any:
    made = table("How it was found", "", "")
    for key in SHOWN:
        if provenance.get(key) not in (None, "", {}):
            made.add_row(key, plain(words(provenance[key])))
    return made
