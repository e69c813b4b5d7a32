"""How learning curves are shown: accuracy by shots, gains and costs of few-shot methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photopic.core.results import Report
from photopic.core.view import Lines, Note, Section, Table, Text, View

APART = 0.025  # how far the strokes of two methods stand apart, in steps of the horizontal axis


def few_shot_view(report: Report) -> View:
    """The whole page of what ``learning_curve`` returned."""
    values, config = report.values, report.provenance["config"]
    protocol = values["protocol"] == "base-to-new"
    sections = [_curves(report, protocol), *_gains(report), _costs(report)]
    if protocol:
        sections.insert(1, _base_and_new(report))
    crops = "cropped at random" if config["augment"] else "as they are"
    facts = [
        ("model", f"{report.provenance['model']}, {values['weights']:,} weights"),
        ("pictures", f"{values['classes']:,} classes, {sum(values['test_pictures']):,} to measure on"),
        ("learning", f"{config['steps']:,} steps of {config['batch']} pictures, {crops}"),
        ("seeds", f"{values['seeds']}, each with its own shots, the same for every method"),
    ]
    title = f"Learning from few pictures with {report.provenance['model']}"
    return View(title, sections, lead=_best(report, protocol), facts=facts)


def _best(report: Report, protocol: bool) -> str:
    shots = max(row["shots"] for row in report.rows)
    rows = [row for row in report.rows if row["shots"] == shots and row["score"] is not None]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row["score"])
    what = "harmonic mean of base and new" if protocol else "of the test pictures right"
    said = f"With {_shots(shots)} a class, {best['method']} is ahead: {best['score']:.1%} {what}"
    if best["gain"] is None:
        return f"{said}."
    reference = report.values["reference"]
    return f"{said}, {_points(best['gain'])} points over {reference} ({_points(best['gain_low'])} to {_points(best['gain_high'])})."


def _curves(report: Report, protocol: bool) -> Section:
    shots, methods = _axes(report)
    lines, ranges = [], []
    for number, method in enumerate(methods):
        rows = [row for row in report.rows if row["method"] == method and row["score"] is not None]
        if rows:
            shift = APART * (number - (len(methods) - 1) / 2)
            lines.append((method, [(shots.index(row["shots"]) + shift, 100 * row["score"]) for row in rows]))
            ranges.append([(shots.index(row["shots"]) + shift, 100 * row["low"], 100 * row["high"]) for row in rows])
    count = sum(report.values["test_pictures"])
    text = (
        f"Every method learns from the same pictures and is measured on the same {count:,} others, of "
        f"{report.values['classes']:,} classes. Strokes are 95 % intervals over seeds and test pictures."
    )
    what = "harmonic mean, %" if protocol else "accuracy, %"
    head = ("method", *(_shots(each) for each in shots))
    table = [
        (method, *(_cell(_row(report, method, each), "score", "low", "high") for each in shots)) for method in methods
    ]
    blocks: list[Any] = [Text(text)]
    if lines:
        names = [str(each) for each in shots]
        blocks.append(Lines(lines, "shots a class", what, x_names=names, from_zero=False, ranges=ranges))
    blocks.append(Table(head, table, f"{what.capitalize()}, with 95 % intervals."))
    if report.values["seeds"] < 3:
        blocks.append(Note("with fewer than three seeds the intervals hardly show how much the shots matter.", "Seeds"))
    if protocol and len(lines) < len(methods):
        blocks.append(Note("methods without numbers here cannot name classes they were not shown.", "Left out"))
    return Section("Accuracy by shots" if not protocol else "Base and new classes together", blocks)


def _base_and_new(report: Report) -> Section:
    shots, methods = _axes(report)
    rows = [_row(report, method, max(shots)) for method in methods]
    table = [(row["method"], _percent(row["base"]), _percent(row["new"]), _percent(row["score"])) for row in rows]
    base, new = report.values["test_pictures"]
    caption = f"With {_shots(max(shots))} a class; {base:,} test pictures of base classes and {new:,} of new ones."
    text = "Methods learn the base classes alone; the new ones are named by what the text tower says of them."
    return Section(
        "Each part alone", [Text(text), Table(("method", "base, %", "new, %", "harmonic mean, %"), table, caption)]
    )


def _gains(report: Report) -> list[Section]:
    reference = report.values["reference"]
    shots, methods = _axes(report)
    others = [method for method in methods if any(_row(report, method, each)["gain"] is not None for each in shots)]
    if reference is None or not others:
        return []
    table = [
        (method, *(_cell(_row(report, method, each), "gain", "gain_low", "gain_high") for each in shots))
        for method in others
    ]
    text = f"Points gained over {reference}, seed by seed and picture by picture; a method helps where its interval is above 0."
    return [
        Section(f"Gain over {reference}", [Text(text), Table(("method", *(_shots(each) for each in shots)), table)])
    ]


def _costs(report: Report) -> Section:
    shots, methods = _axes(report)
    rows = [_row(report, method, max(shots)) for method in methods]
    table = [
        (
            row["method"],
            f"{row['trainable']:,}",
            f"{row['size_bytes']:,}",
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
        )
        for row in rows
    ]
    caption = f"With {_shots(max(shots))} a class; seconds of learning, mean over seeds."
    head = ("method", "trained parameters", "bytes to save", "seconds")
    return Section("What it costs", [Table(head, table, caption)])


def _axes(report: Report) -> tuple[list[int], list[str]]:
    shots = sorted({row["shots"] for row in report.rows})
    return shots, list(dict.fromkeys(row["method"] for row in report.rows))


def _row(report: Report, method: str, shots: int) -> Mapping[str, Any]:
    return next(row for row in report.rows if row["method"] == method and row["shots"] == shots)


def _cell(row: Mapping[str, Any], value: str, low: str, high: str) -> str:
    if row[value] is None:
        return "-"
    return f"{100 * row[value]:.1f} ({100 * row[low]:.1f} to {100 * row[high]:.1f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _shots(count: int) -> str:
    return f"{count} shot" if count == 1 else f"{count} shots"
