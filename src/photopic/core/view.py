"""How a result wants to be shown: blocks of text, tables, curves and pictures that a page and a terminal render in their ways.

A view is a function of a result that returns sections or blocks; it knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Note:
    """A remark set apart: a caveat, a result that was not reached, a hint."""

    text: str
    title: str = "Note"
    kind: str = "note"


@dataclass(frozen=True)
class Code:
    """Commands or code, kept as typed."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Figure:
    """One picture with its caption.

    Attributes:
        image: RGB.
        caption: What the reader sees.
        alt: The same for readers who cannot see it; the caption by default.
        width: Shown width in CSS pixels; the picture's own by default.
        badge: A short word over the corner, such as ``before``.
    """

    image: UInt8[np.ndarray, "height width 3"]
    caption: str = ""
    alt: str = ""
    width: int | None = None
    badge: str = ""


@dataclass(frozen=True)
class Gallery:
    """Figures side by side, wrapping on small screens."""

    figures: Sequence[Figure]
    caption: str = ""
    kind: str = "gallery"


@dataclass(frozen=True)
class PictureRows:
    """Rows of small pictures under column heads: the same seeds, one row a treatment.

    Attributes:
        rows: (label, pictures) of each row.
        caption: What the reader sees.
    """

    rows: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "height width 3"]]]]
    caption: str = ""
    kind: str = "picture_rows"


@dataclass(frozen=True)
class Table:
    """A table; cells that are numbers are set right.

    Attributes:
        header: Column heads.
        rows: Cells, as strings or numbers.
        caption: What the reader sees.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: (label, value from 0 to 1, text beside it)."""

    bars: Sequence[tuple[str, float, str]]
    caption: str = ""
    kind: str = "bars"


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot: a value and its 95 % interval."""

    label: str
    value: float
    low: float
    high: float
    strong: bool = False


@dataclass(frozen=True)
class Intervals:
    """Values with their intervals on one common axis; the reader compares positions.

    Attributes:
        items: The rows.
        caption: What the reader sees.
    """

    items: Sequence[Interval]
    caption: str = ""
    kind: str = "intervals"


@dataclass(frozen=True)
class Lines:
    """Curves on common axes; one colour a line, in the order given.

    Attributes:
        lines: (label, points (x, y) with x ascending) of each curve.
        x_label: What the horizontal axis shows.
        y_label: What the vertical axis shows.
        x_names: Names at x = 0, 1, 2, ... in place of numbers.
        log_x: Horizontal axis in decades; x above 0.
        log_y: Vertical axis in decades; y above 0.
        from_zero: Whether a vertical axis in numbers begins at 0.
        ranges: Of each line (x, low, high), drawn as upright strokes; none by default.
        caption: What the reader sees.
    """

    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    x_label: str = ""
    y_label: str = ""
    x_names: Sequence[str] = ()
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = True
    ranges: Sequence[Sequence[tuple[float, float, float]]] = ()
    caption: str = ""
    kind: str = "lines"


Block = Text | Note | Code | Gallery | PictureRows | Table | Bars | Intervals | Lines


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading; none for the opening.
        blocks: In order.
    """

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


@dataclass(frozen=True)
class View:
    """How a result wants to be shown as a whole.

    Attributes:
        title: The headline.
        sections: The parts in order.
        lead: One or two sentences under the headline: what was found.
        facts: (name, value) pairs of how it was made, for the foot.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    facts: Sequence[tuple[str, str]] = ()
