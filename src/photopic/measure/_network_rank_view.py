"""The page of ``network_rank``: ranks by layer for every threshold, spectra, and the dimension of the classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from photopic.core.results import Report
from photopic.core.view import Bars, Lines, Note, Section, Table, Text, View
from photopic.measure._common import page_facts

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


def rank_view(report: Report) -> View:
    """Ranks by layer, the spectra behind them, and what the classification needs."""
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
        *page_facts(report),
        ("arithmetic", config["dtype"]),
        (
            "varying",
            f"a square of {config['patch']} pixels on {config['background']}" if config["patch"] else "the whole input",
        ),
        ("noise", f"{config['noise']:g}, {config['samples']:,} copies, seed {config['seed']}"),
    ]
    return View(f"How many dimensions survive in {report.provenance['model']}", sections, lead, facts)


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
