"""Where the curves and intervals of a view fall in a drawing: positions, ticks and spans, in SVG pixels or per cent."""

from __future__ import annotations

import math

from photopic.core.view import Intervals, Lines


class IntervalAxis:
    """The common axis of intervals, with a little air at its ends.

    Example:
        >>> from photopic.core.view import Interval
        >>> axis = IntervalAxis(Intervals([Interval("a", 0.5, 0.0, 1.0)]))
        >>> round(axis.place(0.5))
        50
    """

    def __init__(self, block: Intervals):
        # the axis spans the intervals, not the values: no end of an interval may leave the drawing
        low, high = min(item.low for item in block.items), max(item.high for item in block.items)
        air = (high - low or 1.0) * 0.06  # all alike: a span of 1, so that nothing is divided by 0
        self.low, self.high = low - air, high + air

    def place(self, value: float) -> float:
        """Position of a value on the axis in per cent."""
        return 100 * (value - self.low) / (self.high - self.low)


class Axes:
    """The drawing of curves: where each point and tick is, in pixels from the upper left."""

    width, height = 876, 330  # of the drawing
    left, right, top, bottom = 64, 12, 14, 46  # around the axes

    def __init__(self, block: Lines):
        self.block = block

    def drawn(self) -> list[tuple[str, str]]:
        """(label, SVG points) of each line."""
        return [
            (label, " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points))
            for label, points in self.block.lines
        ]

    def x_ticks(self) -> list[tuple[float, str]]:
        """(position, text) along the horizontal axis; of many names every second, third, ..."""
        names = self.block.x_names
        if names:
            step = -(-len(names) // 14)  # at most 14 names fit side by side
            return [(self.x(float(i)), name) for i, name in enumerate(names) if i % step == 0]
        return [(self.x(each), f"{each:g}") for each in _ticks(*self._span(0), self.block.log_x)]

    def y_ticks(self) -> list[tuple[float, str]]:
        """(position, text) along the vertical axis."""
        return [(self.y(each), f"{each:g}") for each in _ticks(*self._span(1), self.block.log_y)]

    def x(self, value: float) -> float:
        """Horizontal position of a value."""
        return self.left + _place(value, *self._span(0), self.block.log_x) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Vertical position of a value; the axis points up."""
        # SVG counts pixels downwards, hence from the lower edge
        share = _place(value, *self._span(1), self.block.log_y)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def _span(self, axis: int) -> tuple[float, float]:
        block = self.block
        values = [point[axis] for _, points in block.lines for point in points]
        values += [each for bars in block.ranges for bar in bars for each in (bar[1:] if axis else bar[:1])]
        low, high = min(values), max(values)
        # lengths are compared from zero; positions, as on a logarithmic axis, are not
        if axis == 1 and not block.log_y and block.from_zero:
            low = min(low, 0.0)
        return (low, high) if high > low else (low, low * 10 if (block.log_x, block.log_y)[axis] else low + 1)


def _place(value: float, low: float, high: float, log: bool) -> float:
    if log:
        value, low, high = (math.log10(each) for each in (value, low, high))
    return (value - low) / (high - low)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        decades = [10.0**each for each in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        if len(decades) > 2:
            return decades[:: -(-len(decades) // 8)]  # at most 8; -(-a // b) rounds up
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        # one or two decades: 1, 2 and 5 of each, and where even those miss the span its two ends
        fine = [digit * 10.0**each for each in powers for digit in (1, 2, 5) if low <= digit * 10.0**each <= high]
        return fine if len(fine) > 1 else [float(f"{each:.2g}") for each in (low, high)]
    raw = (high - low) / 5  # five steps, each then rounded up to 1, 2 or 5 times a power of ten
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * each for each in (1, 2, 5, 10) if unit * each >= raw)
    return [
        step * each for each in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)
    ]  # 1e-9: 0.3 / 0.1 is 2.9999...
