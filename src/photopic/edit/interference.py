"""What edits would do to each other, before they are composed: overlaps against chance, opposite signs, shared subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.edits.interference import interference as compared
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.nn.layer_names import place
from photopic.core.results import Report
from photopic.core.view import Block, Section, Table, Text, View
from photopic.edit._common import check_base, labels, shared_note
from photopic.models.handle import Handle

SHOWN = 20  # rows of the table
COLUMNS = ("shared", "expected", "set_twice", "opposite", "cosine", "angle_deg")


def interference_view(report: Report) -> View:
    """What is shared, worst first."""
    values, rows = report.values, report.rows
    lines = [Text(shared_note(values))]
    if values["set_twice"]:
        lines.append(
            Text(f"{values['set_twice']:,} of them are set by more than one; --overlap decides what they become")
        )
    if values["opposite"] is not None:
        lines.append(Text(f"{values['opposite']:.1%} of them change with opposite signs"))
    has_pairs = len(values["edits"]) > 2
    header = [*(["edits"] if has_pairs else []), "where", "shared", "chance", "set twice", "opposed", "cosine", "angle"]
    shown = [
        [
            *([row["pair"]] if has_pairs else []),
            " ".join(place(row["tensor"])).strip(),
            *(_cell(row[key]) for key in COLUMNS),
        ]
        for row in rows[:SHOWN]
    ]
    blocks: list[Block] = [*lines, Table(header, shown, "Interference")] if rows else [*lines]
    if len(rows) > SHOWN:
        blocks.append(Text(f"and {len(rows) - SHOWN} more tensors that share no more than the last of these"))
    return View("Interference", [Section("", blocks)])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


@method(
    examples=(
        "Example: photopic edit interference bear.edit mug.edit",
        "With signs and angles: photopic edit interference bear.edit mug.edit --model emoji-diffusion",
    ),
    view=interference_view,
    page=False,
)
def interference(
    edits: Sequence[Edit], *, model: Handle | None = None, names: Annotated[Sequence[str] | None, Flags()] = None
) -> Steps[Report]:
    """Show where several edits would get in each other's way: entries they share, against chance, signs and subspaces.

    Args:
        edits: Two or more edit files for the same base model.
        model: Their base model; with it signs and angles of edits that shut or set entries are known too.
        names: What to call the edits; their words by default.

    Returns:
        A row a pair and tensor that both touch, worst overlap first; the values hold the sums.

    Raises:
        EditError: If there are fewer than two, they are for different bases, or the model is not theirs.

    Example:
        >>> interference([bear, mug]).values["shared"]  # doctest: +SKIP
        1204
    """
    yield Event("comparing")
    called = labels(edits, names)
    if model is not None:
        check_base(model, edits, called)
    report = compared(*edits, base=None if model is None else model.components, names=called)
    return replace(report, provenance={})  # the method's own is written
