"""One self-contained HTML page: text, figures, tables and notes; styles inline, pictures as base64 PNG, no script.

Reports are built from the blocks below and rendered by ``render``; nothing on the page is fetched from anywhere.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import UInt8

from photopic.data.pictures import png_bytes

LONGEST_NUMBER = 30  # characters of a cell that is set right and not wrapped


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
    """One row of an interval plot: a value and its 95 % interval, already placed on a common axis by the page."""

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

    @property
    def span(self) -> tuple[float, float]:
        """Ends of the common axis, with a little air."""
        low, high = min(item.low for item in self.items), max(item.high for item in self.items)
        air = (high - low or 1.0) * 0.06
        return low - air, high + air

    def place(self, value: float) -> float:
        """Position of a value on the axis in per cent."""
        low, high = self.span
        return 100 * (value - low) / (high - low)


@dataclass(frozen=True)
class Lines:
    """Curves on common axes, drawn as SVG; one colour a line, in the order given.

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

    width, height = 876, 330  # of the drawing
    left, right, top, bottom = 64, 12, 14, 46  # around the axes

    def drawn(self) -> list[tuple[str, str]]:
        """(label, SVG points) of each line."""
        return [
            (label, " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)) for label, points in self.lines
        ]

    def x_ticks(self) -> list[tuple[float, str]]:
        """(position, text) along the horizontal axis; of many names every second, third, ..."""
        if self.x_names:
            step = -(-len(self.x_names) // 14)
            return [(self.x(float(i)), name) for i, name in enumerate(self.x_names) if i % step == 0]
        return [(self.x(each), f"{each:g}") for each in _ticks(*self._span(0), self.log_x)]

    def y_ticks(self) -> list[tuple[float, str]]:
        """(position, text) along the vertical axis."""
        return [(self.y(each), f"{each:g}") for each in _ticks(*self._span(1), self.log_y)]

    def x(self, value: float) -> float:
        """Horizontal position of a value."""
        return self.left + _place(value, *self._span(0), self.log_x) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Vertical position of a value."""
        return (
            self.height
            - self.bottom
            - _place(value, *self._span(1), self.log_y) * (self.height - self.top - self.bottom)
        )

    def _span(self, axis: int) -> tuple[float, float]:
        values = [point[axis] for _, points in self.lines for point in points]
        values += [each for bars in self.ranges for bar in bars for each in (bar[1:] if axis else bar[:1])]
        low, high = min(values), max(values)
        if axis == 1 and not self.log_y and self.from_zero:
            low = min(low, 0.0)
        return (low, high) if high > low else (low, low * 10 if (self.log_x, self.log_y)[axis] else low + 1)


def _place(value: float, low: float, high: float, log: bool) -> float:
    if log:
        value, low, high = (math.log10(each) for each in (value, low, high))
    return (value - low) / (high - low)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        decades = [10.0**each for each in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        if len(decades) > 2:
            return decades[:: -(-len(decades) // 8)]
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        fine = [digit * 10.0**each for each in powers for digit in (1, 2, 5) if low <= digit * 10.0**each <= high]
        return fine if len(fine) > 1 else [float(f"{each:.2g}") for each in (low, high)]
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * each for each in (1, 2, 5, 10) if unit * each >= raw)
    return [step * each for each in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Section:
    """A titled part of the page.

    Attributes:
        title: The heading; none for what opens the page.
        blocks: Text, Note, Code, Gallery, PictureRows, Table, Bars, Intervals or Lines, in order.
    """

    title: str
    blocks: Sequence[Any] = field(default_factory=tuple)


def render(title: str, sections: Sequence[Section], *, lead: str = "", facts: Sequence[tuple[str, str]] = ()) -> str:
    """Render a page.

    Args:
        title: The headline.
        sections: The parts in order.
        lead: One or two sentences under the headline.
        facts: (name, value) pairs of how the page was made, shown at its foot.

    Returns:
        The HTML of the whole page; every piece of text is escaped.

    Example:
        >>> html = render("Found", [Section("Where", [Text("in <layer> 3")])])
        >>> "in &lt;layer&gt; 3" in html and "<script" not in html
        True
    """
    from jinja2 import Environment

    source = resources.files(__package__).joinpath("templates", "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = _data_uri
    environment.tests["numeric"] = _is_numeric
    return environment.from_string(source).render(title=title, sections=sections, lead=lead, facts=facts)


def _data_uri(image: UInt8[np.ndarray, "height width 3"]) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def _is_numeric(cell: Any) -> bool:
    """Numbers, and short text that starts like one, such as ``1.2 (0.3)``; a sum of names wraps like prose."""
    if isinstance(cell, str):
        return cell[:1] in "+-0123456789" and 0 < len(cell) <= LONGEST_NUMBER
    return isinstance(cell, int | float)
