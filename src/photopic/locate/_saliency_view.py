"""How a comparison of attribution maps is shown: the numbers, the curves of deletion and insertion, the pictures."""

from __future__ import annotations

from typing import Any

from photopic.core.view import Figure, Gallery, Lines, Note, Section, Table, Text, View
from photopic.data.overlays import enlarged, overlays

SIDE = 160  # CSS pixels of a picture
READ = (
    "Pointing: the brightest pixel lies on the object. Energy: the share of the map on it. Deletion: probability of the class "
    "while the brightest pixels go, lower is better. Insertion: while they come alone, higher is better. Random weights: rank "
    "correlation with the map of a network whose weights are random; near 1 the map does not show the network."
)


def saliency_view(report: Any) -> View:
    """All methods beside a bump in the middle and random maps."""
    header = ["map", "pointing", "energy", "deletion", "insertion", "random weights", "ms a picture"]
    table = Table(header, [_cells(row) for row in report.rows], READ)
    notes = (
        []
        if report.values["masked"]
        else [Note("Pointing and energy need masks of the objects: give them with --masks.")]
    )
    lead = f"{report.values['pictures']} pictures, classes: {', '.join(report.provenance['classes'][:12])}"
    sections = [Section("", [Text(lead), table, *notes])]
    for kind, title in (("deletion", "Brightest pixels go"), ("insertion", "Brightest pixels come alone")):
        lines = [
            (row["method"], [((step + 1) / 10, each) for step, each in enumerate(row[f"{kind}_curve"])])
            for row in report.rows
        ]
        sections.append(Section(title, [Lines(lines, "share of the pixels", "probability of the class")]))
    if any(row["randomised"] for row in report.rows):
        lines = [
            (row["method"], [(float(part), each) for part, each in enumerate(row["randomised"])])
            for row in report.rows
            if row["randomised"]
        ]
        names = [name.rpartition(".")[2] for name in report.values["parts"]]
        shown = Lines(lines, "weights drawn anew down to", "rank correlation", x_names=names, from_zero=False)
        sections.append(Section("Random weights", [shown]))
    return View("Saliency", [*sections, *_pictures(report)], lead)


def _cells(row: Any) -> list[str]:
    shares = [_share(row[name], "{:.0%}") for name in ("pointing", "energy")]
    areas = [_share(row[name], "{:.3f}") for name in ("deletion", "insertion")]
    alike = f"{row['randomised'][-1]:.2f}" if row["randomised"] else ""
    return [row["method"], *shares, *areas, alike, "" if row["seconds"] is None else f"{1000 * row['seconds']:.0f}"]


def _share(found: Any, how: str) -> str:
    return "" if found is None else f"{how.format(found[0])} ({how.format(found[1])} to {how.format(found[2])})"


def _pictures(report: Any) -> list[Section]:
    """The first pictures, each beside its maps."""
    maps = report.maps
    if not maps:
        return []
    over = {name: overlays(found, SIDE) for name, found in maps.items()}
    figures = []
    for number, image in enumerate(next(iter(maps.values())).images):
        figures.append(Figure(enlarged(image, SIDE), "picture", width=SIDE))
        figures += [Figure(each[number][name], name, width=SIDE) for name, each in over.items()]
    return [Section("Maps", [Gallery(figures)])] if figures else []
