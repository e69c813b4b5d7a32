"""The page of ``compare_graphs``: honest scores with intervals, the published ones beside them, the pictures that went worst."""

from __future__ import annotations

from photopic.core.results import Report
from photopic.core.view import Interval, Intervals, Note, Section, Table, Text, View

KINDS = {
    "objects": "objects by concept",
    "relations": "relations by concept",
    "attributes": "descriptions and colours",
    "located": "objects where they are",
    "located_relations": "relations between located objects",
}
SHOWN = 20  # pictures of the table


def compare_view(report: Report) -> View:
    """Scores, controls, published scores and the worst pictures."""
    values = report.values
    table = [
        (
            words,
            *(values["macro"][kind][name] for name in ("precision", "recall", "f1")),
            values["micro"][kind]["f1"],
            values["shuffled"][kind],
        )
        for kind, words in KINDS.items()
    ]
    intervals = []
    for kind, words in KINDS.items():
        f1, low, high = values["f1"][kind]
        intervals.append(Interval(words, f1, low, high, strong=True))
    head = ("what", "precision", "recall", "F1", "F1 of all counts together", "F1 with pictures shuffled")
    honest = Section(
        "Scores",
        [
            Text("One-to-one matching; means over all pictures, where a picture without predictions counts as 0."),
            Table(head, [[row[0], *(round(each, 3) for each in row[1:])] for row in table]),
            Intervals(intervals, "F1 with its 95 % interval over pictures."),
            Text(
                f"Attributes of the objects that were found: {values['attribute_accuracy']:.3f} right. Mean overlap of located "
                f"objects {values['mean_iou']:.3f}."
            ),
        ],
    )
    published = values["published"]
    beside = Section(
        "The published scores",
        [
            Text(
                "As the paper computes them, names compared word for word; they are no bar, and higher is not always better."
            ),
            Table(("score", "value"), [(name.replace("_", " "), round(each, 3)) for name, each in published.items()]),
            Note(
                f"{published['left_out']} pictures without predictions are in neither of these means. Object precision was "
                "published as AP50, though nothing is ranked; triples right is a count that grows with the pictures.",
                "What they leave out",
            ),
        ],
    )
    worst = sorted(report.rows, key=lambda row: (row["objects"], row["relations"]))[:SHOWN]
    rows = [[row["picture"], *(round(row[kind], 3) for kind in KINDS), row["problem"]] for row in worst]
    table_of_pictures = Table(("picture", *KINDS.values(), "problem"), rows, "F1 of each.")
    pictures = Section("Pictures, worst first", [table_of_pictures])
    objects, relations = (values["f1"][kind][0] for kind in ("objects", "relations"))
    lead = (
        f"{values['pictures']} pictures; F1 of objects {objects:.3f}, of relations {relations:.3f}; {values['read']} of "
        f"{values['predicted']} predictions could be read, with {values['repairs']:.2f} repairs each."
    )
    return View("Predicted graphs against the truth", [honest, beside, pictures], lead)
