"""Tables and bars on the terminal, and what is read from a file as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photopic.core.errors import printable
from photopic.core.view import Bars, Code, Note, Table, Text, View

BAR = 28  # characters of a full bar
LONGEST_NUMBER = 30  # characters of a cell that is set right and not wrapped


def table(title: str, *columns: str) -> Any:
    """A table without lines between its rows; a column whose name starts with ``>`` is set right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    made.min_width, made.show_header, made.collapse_padding = len(title), any(columns), True
    for name in columns:
        made.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return made


def bar(share: float) -> str:
    """A bar for a share of the longest; what is above nothing is seen.

    Example:
        >>> len(bar(0.5)), bar(0.0), len(bar(1e-9))
        (14, '', 1)
    """
    return "█" * max(1, round(BAR * share)) if share > 0 else ""


def words(value: Any) -> str:
    """A JSON value as a person writes it.

    Example:
        >>> words({"steps": 120, "losses": [0.25, None], "kept": True})
        'steps 120, losses [0.25, -], kept yes'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(words, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value)


def is_numeric(cell: Any) -> bool:
    """Numbers, none of them, and short text that starts like one, such as ``1.2 (0.3)``; a sum of names wraps like prose.

    Example:
        >>> is_numeric("1,204"), is_numeric("-"), is_numeric("mid")
        (True, True, False)
    """
    if isinstance(cell, str):
        return cell[:1] in tuple("+-0123456789") and len(cell) <= LONGEST_NUMBER
    return cell is None or isinstance(cell, int | float)


def plain(text: str) -> str:
    """Text of a file as one line of text: no console markup, no control characters."""
    from rich.markup import escape

    return escape(printable(text))


def show(view: View) -> None:
    """Print the texts, tables, bars and notes of a view on stdout; pictures and curves are for its page."""
    from rich.console import Console

    shown = Console(highlight=False)
    if view.lead:
        shown.print(plain(view.lead), style="bold")
    for section in view.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                columns = [[row[place] for row in block.rows] for place in range(len(block.header))]
                right = [bool(cells) and all(map(is_numeric, cells)) for cells in columns]
                made = table(
                    plain(block.caption or section.title),
                    *(">" * r + plain(h) for r, h in zip(right, block.header, strict=True)),
                )
                for row in block.rows:
                    made.add_row(*(plain(words(cell)) for cell in row))
                shown.print(made)
            elif isinstance(block, Bars):
                made = table(plain(block.caption or section.title), "", "", ">")
                for label, share, text in block.bars:
                    made.add_row(plain(label), bar(share), plain(text))
                shown.print(made)
            elif isinstance(block, Code):
                shown.print(f"[bold]{plain(section.title)}[/]", *map(plain, block.text.splitlines()), sep="\n")
            elif isinstance(block, Text):
                shown.print(plain(block.text))
            elif isinstance(block, Note):
                shown.print(plain(f"{block.title}: {block.text}"), style="yellow")
