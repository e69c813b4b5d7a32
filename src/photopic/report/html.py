"""One self-contained HTML page of a view: styles inline, pictures as base64 PNG, no script; nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
from jaxtyping import UInt8

from photopic.core.results import Report, Verdict
from photopic.core.view import Section, View
from photopic.data.pictures import text_of
from photopic.report.axes import Axes, IntervalAxis
from photopic.report.terminal import is_numeric, words
from photopic.report.views import view_of


def page(shown: View | Report | Verdict) -> str:
    """The page of a view, or of a result in the default view.

    Example:
        >>> "<h1>similarity</h1>" in page(Report("similarity", {"mean": 0.5}))
        True
    """
    view = shown if isinstance(shown, View) else view_of(shown)
    return render(view.title, view.sections, lead=view.lead, facts=view.facts)


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
        >>> html = render("Found", [Section("in <layer> 3")])
        >>> "in &lt;layer&gt; 3" in html and "<script" not in html
        True
    """
    from jinja2 import Environment

    source = resources.files(__package__).joinpath("templates", "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"data_uri": _data_uri, "axes": Axes, "interval_axis": IntervalAxis, "words": words}
    environment.tests["numeric"] = is_numeric
    return environment.from_string(source).render(title=title, sections=sections, lead=lead, facts=facts)


def _data_uri(image: UInt8[np.ndarray, "height width 3"]) -> str:
    return "data:image/png;base64," + text_of(image)
