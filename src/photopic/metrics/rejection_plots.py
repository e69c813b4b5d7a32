"""Pictures of rejection scores as SVG text, to be put into a page as they are: risk-coverage, ROC, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import Float64

from photopic.core.errors import DataError
from photopic.metrics.rejection import GROUPS, Scores

COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c77800", "#444444", "#17a2a2", "#b03a88")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 300, 46, 12, 14, 40
BINS, POINTS = 32, 400
Curve = tuple[Sequence[float], Sequence[float]]


def rejection_plots(several: Mapping[str, Scores]) -> dict[str, str]:
    """Three pictures for any number of scores.

    Args:
        several: Scores by name; the histogram shows the first.

    Returns:
        SVG by name: ``risk_coverage`` (error rate among the accepted against the share accepted), ``roc`` (UOSR), ``histogram``
        (the three groups over the ranks of the score, which every scale has in common).

    Raises:
        DataError: If nothing is given.

    Example:
        >>> scores = Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False])
        >>> sorted(rejection_plots({"msp": scores}))
        ['histogram', 'risk_coverage', 'roc']
    """
    if not several:
        raise DataError("plots: expected scores of at least one scorer, found none")
    name = next(iter(several))
    risks = {each: _risk_coverage(scores) for each, scores in several.items()}
    top = max(0.05, *(max(risk) for _, risk in risks.values()))
    return {
        "risk_coverage": _lines(risks, ("share accepted", "error rate among the accepted"), top),
        "roc": _lines(
            {each: _roc(scores) for each, scores in several.items()}, ("correct rejected", "rest rejected"), 1.0
        ),
        "histogram": _histogram(name, several[name]),
    }


def _risk_coverage(scores: Scores) -> Curve:
    sizes = scores.counts.sum(0)
    accepted = np.cumsum(sizes)
    risk = np.cumsum(sizes - scores.counts[0]) / accepted
    return _thinned(accepted / accepted[-1], risk)


def _roc(scores: Scores) -> Curve:
    inc, other = scores.counts[0], scores.counts[1:].sum(0)
    rates = [np.append(0, np.cumsum(side[::-1])) / max(1, side.sum()) for side in (inc, other)]
    return _thinned(*rates)


def _thinned(x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return x[kept].tolist(), y[kept].tolist()


def _lines(curves: Mapping[str, Curve], axes: tuple[str, str], top: float) -> str:
    marks = _axes(axes, top)
    for number, (name, (x, y)) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join("{:.1f},{:.1f}".format(*_at(a, b / top)) for a, b in zip(x, y, strict=True))
        marks.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        marks.append(_legend(number, name, colour))
    return _picture(marks)


def _histogram(name: str, scores: Scores) -> str:
    """Shares of each group over the ranks: a score that ranks well fills the left with InC and the right with the rest."""
    sizes = scores.counts.sum(0)
    rank = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    bins = [np.histogram(rank, BINS, (0, 1), weights=side / max(1, side.sum()))[0] for side in scores.counts]
    top = max(float(side.max()) for side in bins)
    marks = _axes((f"rank of the score ({name})", "share of the group"), top)
    for number, (group, side) in enumerate(zip(GROUPS, bins, strict=True)):
        colour = COLOURS[number]
        corners = [(edge, side[min(k, BINS - 1)]) for k in range(BINS) for edge in (k / BINS, (k + 1) / BINS)]
        points = " ".join("{:.1f},{:.1f}".format(*_at(x, float(y) / top)) for x, y in corners)
        marks.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        marks.append(_legend(number, f"{group} ({int(scores.counts[number].sum())})", colour))
    return _picture(marks)


def _at(x: float, y: float) -> tuple[float, float]:
    return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)


def _axes(names: tuple[str, str], top: float) -> list[str]:
    marks = []
    for step in range(5):
        (x, base), (_, y) = _at(step / 4, 0.0), _at(0.0, step / 4)
        marks.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        marks.append(f'<text x="{x:.1f}" y="{base + 14:.1f}" text-anchor="middle">{step / 4:g}</text>')
        marks.append(f'<text x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{top * step / 4:.2g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    marks.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(names[0])}</text>')
    turn = f'transform="rotate(-90 10 {HEIGHT / 2:.0f})"'
    return [*marks, f'<text x="10" y="{HEIGHT / 2:.0f}" text-anchor="middle" {turn}>{escape(names[1])}</text>']


def _legend(number: int, name: str, colour: str) -> str:
    y = TOP + 12 + 14 * number
    return f'<text x="{LEFT + 8}" y="{y}" fill="{colour}">{escape(name)}</text>'


def _picture(marks: Sequence[str]) -> str:
    style = "<style>text{font:11px sans-serif}</style><rect width='100%' height='100%' fill='white'/>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([head, style, *marks, "</svg>", ""])
