"""``photopic compose``: several edits of one model as one file.

photopic compose bear.edit mug.edit -o both.edit
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photopic.core.errors import PhotopicError
from photopic.report.terminal import plain, table

if TYPE_CHECKING:
    from torch import nn

    from photopic.core.edits import Edit
    from photopic.core.results import Report

EPILOG = (
    "Example: photopic compose bear.edit mug.edit -o both.edit    "
    "Two fine-tunings: photopic compose a.edit b.edit --overlap ties --weight 0.5 --weight 0.5 --model ./base -o ab.edit"
)


SHOWN = 20  # rows of the interference table


class Overlap(StrEnum):
    """What becomes of entries that several edits touch."""

    ERROR = "error"
    UNION = "union"
    FIRST = "first"
    SUM = "sum"
    TIES = "ties"


def compose(
    edits: Annotated[list[Path], typer.Argument(help="Two or more edit files for the same base model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; never one of the edits.")],
    overlap: Annotated[
        Overlap,
        typer.Option(
            help="Entries that several edits touch: refuse them unless all do the same (error), values win over shutting "
            "(union), the earlier edit wins (first), changes are added (sum), or the changes that agree with the elected sign "
            "are averaged (ties)."
        ),
    ] = Overlap.ERROR,
    weight: Annotated[
        list[float] | None,
        typer.Option("--weight", help="How far each edit goes: one for each, in order.", show_default="1 each"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The base model: bundled, a folder or a hub id. Needed for sum, ties and weights where an edit shuts or sets "
            "entries, because then its change depends on what was there.",
            show_default="not loaded",
        ),
    ] = None,
) -> None:
    """Make one edit of several, and show first where they get in each other's way.

    The result remembers what it was made of: photopic inspect shows it as a tree.
    """
    _check_files(edits, output)
    _check_weights(weight, edits)
    from photopic.core.edits import compose as compose_edits
    from photopic.core.edits.file import load, save
    from photopic.core.edits.interference import interference

    loaded = [load(path) for path in edits]
    _check_tokens(edits, loaded)
    if model is None and (overlap in (Overlap.SUM, Overlap.TIES) or set(weight or [1.0]) != {1.0}):
        _check_only_added(edits, loaded, f"--overlap {overlap.value}" if weight is None else "--weight")
    base = None if model is None else _base(model, edits, loaded)
    _print(interference(*loaded, base=base, names=[path.name for path in edits]))
    both = compose_edits(*loaded, overlap=overlap.value, weights=weight, base=base)
    save(both, output)
    typer.echo(f"{output}: {output.stat().st_size:,} bytes; look inside with: photopic inspect {output}")


def _check_files(edits: Sequence[Path], output: Path) -> None:
    if len(edits) < 2:
        raise PhotopicError(f"compose: expected at least two edits, found {len(edits)}; name another")
    for path in edits:
        if output.exists() and path.exists() and output.samefile(path):
            raise PhotopicError(f"{output}: is one of the edits to compose; choose another --output")


def _check_weights(weights: Sequence[float] | None, edits: Sequence[Path]) -> None:
    if weights is not None and len(weights) != len(edits):
        raise PhotopicError(f"--weight: expected one for each of {len(edits)} edits, found {len(weights)}")


def _check_tokens(paths: Sequence[Path], edits: Sequence[Edit]) -> None:
    """The library says that a word is there twice; only here are the files known."""
    import torch

    from photopic.core.edits import TokenEmbedding

    seen: dict[str, tuple[Path, TokenEmbedding]] = {}
    for path, edit in zip(paths, edits, strict=True):
        for part in edit.parts:
            if isinstance(part, TokenEmbedding):
                other, known = seen.setdefault(part.token, (path, part))
                same = known.rows.keys() == part.rows.keys() and all(
                    torch.equal(row, part.rows[name]) for name, row in known.rows.items()
                )
                if not same:
                    raise PhotopicError(
                        f"{path}: its word {part.token} is also that of {other}, with another row; "
                        "locate one again with another --token"
                    )


def _check_only_added(paths: Sequence[Path], edits: Sequence[Edit], option: str) -> None:
    from photopic.core.edits import SparseWeights, ZeroedWeights

    for path, edit in zip(paths, edits, strict=True):
        if any(
            isinstance(part, ZeroedWeights) or (isinstance(part, SparseWeights) and not part.delta)
            for part in edit.parts
        ):
            raise PhotopicError(
                f"{path}: shuts or sets entries, so {option} needs the base model; name it with --model"
            )


def _base(model: str, paths: Sequence[Path], edits: Sequence[Edit]) -> dict[str, nn.Module]:
    """The modules of the base model, after each edit was checked against it."""
    import photopic
    from photopic.core.errors import EditError
    from photopic.report.progress import console

    with console().status(f"loading {model}"):
        handle = photopic.load(model, device="cpu")
        for path, edit in zip(paths, edits, strict=True):
            try:
                handle.edits.unload(handle.edits.load(edit, weight=0.0))
            except EditError as error:
                raise EditError(f"{path.name}: {error}") from None
    return handle.components


def _print(report: Report) -> None:
    """What the edits share, worst first."""
    from rich.console import Console

    from photopic.core.nn.layer_names import place

    console, values = Console(highlight=False), report.values
    ratio = f", {values['over_chance']:.1f} x chance" if values["over_chance"] is not None else ""
    console.print(f"[bold]{plain(' and '.join(values['edits']))}[/] share {values['shared']:,} entries{ratio}")
    if values["set_twice"]:
        console.print(f"{values['set_twice']:,} of them are set by more than one; --overlap decides what they become")
    if values["opposite"] is not None:
        console.print(f"{values['opposite']:.1%} of them change with opposite signs")
    if not report.rows:
        return
    pairs = ["edits"] if len(values["edits"]) > 2 else []
    made = table("Interference", *pairs, "where", ">shared", ">chance", ">set twice", ">opposed", ">cosine", ">angle")
    for row in report.rows[:SHOWN]:
        numbers = (row["shared"], row["expected"], row["set_twice"], row["opposite"], row["cosine"], row["angle_deg"])
        where = " ".join(place(row["tensor"])).strip()
        made.add_row(*([plain(row["pair"])] if pairs else []), plain(where), *map(_cell, numbers))
    console.print(made)
    if len(report.rows) > SHOWN:
        console.print(f"and {len(report.rows) - SHOWN} more tensors that share no more than the last of these")


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"
