"""The page of ``neural_dependencies``: how many classes depend on others, on how many, and the sums."""

from __future__ import annotations

from typing import Any

from photopic.core.results import Report
from photopic.core.view import Lines, Note, Section, Table, Text, View
from photopic.measure._common import LISTED, page_facts, sum_in_words


def dependencies_view(report: Report) -> View:
    """Errors of the sums from best to worst, the sizes of the sums, and the sums themselves."""
    rows = [row for row in report.rows if row.get("held_out_error") is not None]
    dependent = sorted((row for row in rows if row["dependent"]), key=lambda row: row["held_out_error"])
    sizes = sorted(len(row["support"]) for row in dependent)
    lead = f"{len(dependent):,} of {len(report.rows):,} classes are sums of a few others."
    ordered = sorted(row["held_out_error"] for row in rows)
    singles = [row["best_single_error"] for row in rows if row["best_single_error"] is not None]
    curves = [
        ("sparse sum", [(float(i), error) for i, error in enumerate(ordered, 1)]),
        ("best single class", [(float(i), e) for i, e in enumerate(sorted(singles), 1)]),
    ]
    blocks: list[Any] = [
        Text(
            "For each class, how much of its logit's variance a weighted sum of a few other classes leaves, on pictures that "
            "neither the fit nor the choice of the penalty has seen; 1 is as good as saying the mean. Classes from best to worst."
        )
    ]
    if rows:
        blocks.append(Lines([curve for curve in curves if curve[1]], "classes", "share of variance left"))
    else:
        blocks.append(Note("no class could be judged.", "Nothing to show"))
    blocks += [Note(warning) for warning in report.values["warnings"]]
    sections = [Section("How many depend", blocks)]
    if sizes:
        sections.append(
            Section("On how many others", [Lines([("dependent classes", [(float(i), float(s)) for i, s in enumerate(sizes, 1)])],
                                                 "classes", "others in the sum")])
        )  # fmt: skip
        table = [
            (
                row["class"],
                f"{row['held_out_error']:.3f}",
                f"{len(row['support'])}",
                sum_in_words(row["support"], row["theta"]),
            )
            for row in dependent[:LISTED]
        ]
        sections.append(Section("The sums", [Table(("class", "error", "others", "sum"), table, "Least error first.")]))
    other = report.provenance.get("other")
    facts = page_facts(report) + ([("other model", other)] if other else [])
    return View(f"Classes of {report.provenance.get('model', 'logits')} that are sums of others", sections, lead, facts)
