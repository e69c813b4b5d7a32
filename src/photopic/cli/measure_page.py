"""The pages of ``photopic measure``: curves and tables of what a classifier is like inside, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from photopic.core.results import Report
from photopic.core.view import Bars, Lines, Note, Section, Table, Text
from photopic.report.html import render as render_page

Facts = Sequence[tuple[str, str]]
LISTED = 40  # classes in a table
FITS = {"published": "published", "positives": "exact zeros, same pictures", "all samples": "exact zeros, all pictures"}
TOOL_TEXT = {
    "jacobian": (
        "What the input can still move",
        "A patch of the input varies; a layer's rank counts the independent ways in which its output can follow. It can only "
        "fall with depth if counted exactly; counted above a threshold it shows where small directions are lost.",
    ),
    "perturbation": (
        "What small noise moves",
        "Copies of a picture with a little noise; the dimension counts the directions in which a layer's outputs differ. It is "
        "at most the number of copies less one.",
    ),
}


def rank_page(report: Report, facts: Facts) -> str:
    """The page of ``photopic measure rank``.

    Args:
        report: What ``network_rank`` returned.
        facts: (name, value) pairs for the foot of the page.
    """
    config = report.provenance["config"]
    sections = [_tool(report, tool) for tool in TOOL_TEXT if tool in config["tools"]]
    if "spectra" in report.values:
        sections.insert(1, _spectra(report.values["spectra"]))
    found = report.values.get("classification")
    lead = ""
    if found:
        sections.append(_classification(found))
        lead = (
            f"{found['centred']} of {found['width']} dimensions of the features keep {found['keep']:.0%} of the accuracy "
            f"({found['uncentred']} by the published way, which does not centre them)."
        )
    facts = [
        *facts,
        ("arithmetic", config["dtype"]),
        (
            "varying",
            f"a square of {config['patch']} pixels on {config['background']}" if config["patch"] else "the whole input",
        ),
        ("noise", f"{config['noise']:g}, {config['samples']:,} copies, seed {config['seed']}"),
    ]
    return render_page(f"How many dimensions survive in {report.provenance['model']}", sections, lead=lead, facts=facts)


def _tool(report: Report, tool: str) -> Section:
    rows = [row for row in report.rows if row["tool"] == tool]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    columns = {_threshold(row): {} for row in rows if row["rank"] is not None}  # type: dict[str, dict[str, Any]]
    for row in rows:
        if row["rank"] is not None:
            columns[_threshold(row)][row["layer"]] = row
    lines = [
        (label, [(float(layers.index(name)), row["rank"]) for name, row in found.items()])
        for label, found in columns.items()
    ]
    table = []
    for name in layers:
        own = next(row for row in rows if row["layer"] == name)
        cells = [_with_spread(found.get(name)) for found in columns.values()]
        table.append((name, f"{own['outputs']:,}", *cells))
    title, text = TOOL_TEXT[tool]
    unresolved = sorted({row["threshold"] for row in rows if row["rank"] is None})
    images = rows[0]["images"]
    caption = (
        f"Singular values above a share of the largest, mean over {images} pictures (standard deviation). The published share "
        "is sqrt(min(outputs, inputs) x 1.2e-7), so it differs from layer to layer."
    )
    blocks: list[Any] = [
        Text(text),
        Lines(lines, "layer", "rank", x_names=[_short(name) for name in layers]),
        Table(("layer", "outputs", *columns), table, caption),
    ]
    if unresolved:
        said = ", ".join(f"{each:g}" for each in unresolved)
        hint = " Use --precision float64." if tool == "jacobian" else " Noise shows nothing below its own size."
        blocks.append(Note(f"{said}: below what this arithmetic resolves, so left out.{hint}", "Thresholds"))
    return Section(title, blocks)


def _spectra(spectra: Mapping[str, Sequence[float]]) -> Section:
    names = list(spectra)
    shown = [names[round(each * (len(names) - 1) / min(5, len(names) - 1 or 1))] for each in range(min(6, len(names)))]
    lines = [
        (name, [(float(index), value) for index, value in enumerate(spectra[name], 1) if value > 1e-9])
        for name in dict.fromkeys(shown)
    ]
    text = (
        "Each layer's singular values over its largest. A threshold is a height in this picture, and the rank is where a curve "
        "falls below it: where curves are steep the rank hardly depends on the threshold, where they are flat it does."
    )
    drawn = Lines(
        [line for line in lines if line[1]], "number of the singular value", "share of the largest", log_y=True
    )
    return Section("Why the threshold matters", [Text(text), drawn])


def _classification(found: Mapping[str, Any]) -> Section:
    lines = [
        (name, [(float(k), value) for k, value in enumerate(found["curve"][name], 1)])
        for name in ("centred", "uncentred")
    ]
    judge = "true classes" if found["judge"] == "labels" else "agreement with the model's own predictions"
    text = (
        "The features that enter the last layer, reduced to their first principal components. Centred: the mean is put back "
        "after reducing; uncentred: as published."
    )
    caption = (
        f"Accuracy on {found['samples']:,} pictures by {judge}; with all {found['width']:,} dimensions {found['accuracy']:.3f}. "
        "The components are those of these same pictures."
    )
    bars = [
        (name, found[name] / found["width"], f"{found[name]} of {found['width']}") for name in ("centred", "uncentred")
    ]
    return Section(
        "What the classification needs",
        [Text(text), Bars(bars), Lines(lines, "dimensions kept", "accuracy", log_x=True, caption=caption)],
    )


def deficit_page(report: Report, facts: Facts) -> str:
    """The page of ``photopic measure deficit``; arguments as ``rank_page``."""
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
        (name, FITS[fit], f"{row['error_all']:.3f}", f"{row['recall']:.2f} -> {row['recall_replaced']:.2f}", _sum(row))
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
    return render_page(
        title, sections, lead=lead, facts=[*facts, ("held out", f"{report.provenance['held_out']:,} pictures")]
    )


def dependencies_page(report: Report, facts: Facts) -> str:
    """The page of ``photopic measure dependencies``; arguments as ``rank_page``."""
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
                _sum({**row, "weights": row["theta"]}),
            )
            for row in dependent[:LISTED]
        ]
        sections.append(Section("The sums", [Table(("class", "error", "others", "sum"), table, "Least error first.")]))
    return render_page(
        f"Classes of {report.provenance['model']} that are sums of others", sections, lead=lead, facts=facts
    )


def _sum(row: Mapping[str, Any]) -> str:
    """The largest terms of a sum."""
    terms = sorted(zip(row["support"], row["weights"], strict=True), key=lambda term: -abs(term[1]))
    said = " ".join(f"{weight:+.2f} {name}" for name, weight in terms[:5])
    return said + (f" and {len(terms) - 5} more" if len(terms) > 5 else "") if terms else "nothing: its mean"


def _threshold(row: Mapping[str, Any]) -> str:
    return "published" if row["rule"] == "published" else f"> {row['threshold']:g}"


def _with_spread(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['rank']:.0f}" if row["std"] == 0 else f"{row['rank']:.1f} ({row['std']:.1f})"


def _short(name: str) -> str:
    """The end of a dotted name, enough to tell layers apart on an axis."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1][:14]
