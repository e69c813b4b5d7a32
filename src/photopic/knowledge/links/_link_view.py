"""How link prediction is shown: every scorer with its numbers, which of them beat counting, and some guesses."""

from __future__ import annotations

from typing import Any

from photopic.core.view import Interval, Intervals, Note, Section, Table, View

SHOWN = {
    "hits_at_1": "Hits@1",
    "hits_at_3": "Hits@3",
    "hits_at_10": "Hits@10",
    "adjusted_mean_rank_index": "rank index",
}


def link_view(report: Any) -> View:
    """A ``LinkReport`` as a page."""
    values, rows = report.values, report.rows
    working = [row["scorer"] for row in rows if row["above_counting"]]
    lead = f"{', '.join(working) or 'No learnt scorer'} ranks the right node above what counting does, with interval."
    table = [
        [
            row["scorer"],
            f"{row['mrr']:.3f}",
            *(f"{row[name]:.3f}" for name in SHOWN),
            "yes" if row["above_counting"] else "",
        ]
        for row in rows
    ]
    among = "all nodes" if values["candidates"] == "all" else "nodes of the right kind"
    links = f"{values['links']:,} links '{values['relation']}'"
    caption = f"{links}, both directions, ranked among {among} without what else is true"
    intervals = [
        Interval(row["scorer"], row["mrr"], row["mrr_low"], row["mrr_high"], row["above_counting"]) for row in rows
    ]
    blocks: list[Any] = [
        Table(["scorer", "MRR", *SHOWN.values(), "above counting"], table, caption=caption),
        Intervals(intervals, caption="Mean reciprocal rank with its 95 % interval"),
    ]
    if not working:
        blocks.append(Note("Counting does as well as what was learnt here: learn longer, or trust the counts."))
    sections = [Section("How well", blocks)]
    if report.guesses:
        guesses = [
            [each["head"], each["relation"], each["right"], f"{each['rank']:g}", ", ".join(each["guesses"])]
            for each in report.guesses
        ]
        caption = (
            f"What {values['best']} says first, without what it learnt from; links from the best ranked to the worst"
        )
        head = ["head", "relation", "right", "its rank", "first guesses"]
        sections.append(Section("Guesses", [Table(head, guesses, caption=caption)]))
    return View("Missing links", sections, lead=lead)
