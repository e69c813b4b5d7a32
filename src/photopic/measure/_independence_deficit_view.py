"""The page of ``independence_deficit``: three ways to fit, and the classes that others replace best."""

from __future__ import annotations

from typing import Any

from photopic.core.results import Report
from photopic.core.view import Bars, Note, Section, Table, Text, View
from photopic.measure._common import LISTED, page_facts, sum_in_words

FITS = {"published": "published", "positives": "exact zeros, same pictures", "all samples": "exact zeros, all pictures"}


def deficit_view(report: Report) -> View:
    """Errors of the three fits on unseen pictures, and the best replaced classes."""
    values, config = report.values, report.provenance["config"]
    bars = [(FITS[fit], min(1.0, values[fit]["error_all"]), f"{values[fit]['error_all']:.2f}") for fit in FITS]
    head = (
        "fit",
        "on its own pictures",
        "unseen, of the class",
        "unseen, all",
        "relative, of the class",
        "recall before",
        "after",
    )
    table = [
        (
            FITS[fit],
            *(f"{values[fit][key]:.3f}" for key in ("fit_error", "error_positives", "error_all")),
            *(f"{values[fit][key]:.3f}" for key in ("relative_logit_error_positives", "recall", "recall_replaced")),
        )
        for fit in FITS
    ]
    best = sorted((row for row in report.rows if row["fit"] == "all samples"), key=lambda row: row["error_all"])
    chosen = [row["class"] for row in best[:LISTED]]
    by_class = {(row["class"], row["fit"]): row for row in report.rows}
    listed = [
        (
            name,
            FITS[fit],
            f"{row['error_all']:.3f}",
            f"{row['recall']:.2f} -> {row['recall_replaced']:.2f}",
            sum_in_words(row["support"], row["weights"]),
        )
        for name in chosen
        for fit in FITS
        for row in [by_class[name, fit]]
    ]
    text = (
        "Each class's logit is replaced by a weighted sum of a few others. An error of 1 is as bad as always saying the mean; the "
        "published fit sees pictures of the class alone and stays good only there."
    )
    blocks: list[Any] = [
        Text(text),
        Bars(
            bars,
            "Error on unseen pictures of all classes, in standard deviations of the logit, median over classes; bars end at 1.",
        ),
        Table(
            head,
            table,
            "Medians over classes. Errors in standard deviations of the logit; the relative one as published.",
        ),
    ]
    blocks += [Note(warning) for warning in report.provenance["warnings"]]
    sections = [
        Section("Three ways to fit", blocks),
        Section(
            "Classes that others replace best",
            [
                Table(
                    ("class", "fit", "error, all", "recall", "sum"), listed, f"The {len(chosen)} with the least error."
                )
            ],
        ),
    ]
    best_error = values["all samples"]["error_all"]
    lead = (
        f"A sum of at most {config['keep']} other logits leaves a median error of {best_error:.2f} standard deviations on unseen "
        f"pictures of all classes, over {values['all samples']['classes']} classes."
    )
    title = f"Which classes of {report.provenance['model']} others replace"
    return View(
        title, sections, lead, [*page_facts(report), ("held out", f"{report.provenance['held_out']:,} pictures")]
    )
