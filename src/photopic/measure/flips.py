"""What each of two classifiers knows that the other does not: pictures that one has right and the other wrong.

A positive flip is a picture that the first classifier has wrong and the second right: what the first could learn from the second.
Almost every pair has some both ways, whichever is better.

Paper: *Fantastic Gains and Where to Find Them: On the Existence and Prospect of General Knowledge Transfer between Any Pretrained
Model* (ICLR 2024, arXiv:2310.17653), section 3. Claims ``transfer.positive_flips`` of benchmarks/train/distillation.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Interval, Intervals, Section, Table, View
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.learning.shared_classes import class_order, shown_classes
from photopic.metrics.intervals import wilson
from photopic.models.classifier import Classifier

SHOWN = 40  # classes in the table of the page
SHARES = {"positive": "right by the second alone", "negative": "right by the first alone"}


def flips_view(report: Report) -> View:
    """Both accuracies and both kinds of flips with intervals, then the classes with most flips."""
    values, (first, second) = report.values, report.provenance["names"]
    named = {"accuracy": f"{first} right", "other_accuracy": f"{second} right"} | SHARES
    items = [Interval(text, values[key], *values[f"{key}_interval"]) for key, text in named.items()]
    header = ["class", "pictures", f"{first} right", f"{second} right", "second alone", "first alone"]
    table = [
        [row["class"], row["pictures"], *(f"{row[key]:.1%}" for key in ("accuracy", "other_accuracy", *SHARES))]
        for row in report.rows[:SHOWN]
    ]
    more = f"The {SHOWN} classes of {len(report.rows)} with most positive flips." if len(report.rows) > SHOWN else ""
    lead = (
        f"{second} is right on {values['positive']:.1%} of the pictures that {first} has wrong, and {first} on "
        f"{values['negative']:.1%} that {second} has wrong, both of all {values['pictures']:,}."
    )
    sections = [
        Section("", [Intervals(items, "share of all pictures")]),
        Section("By class", [Table(header, table, more)]),
    ]
    return View(f"{first} and {second}", sections, lead=lead)


@method(
    paper="arXiv:2310.17653",
    claims="transfer.positive_flips",
    command="measure flips",
    examples=("Example: photopic measure flips emoji-resnet-64-0 emoji-vit-64-0 pictures/ --json",),
    view=flips_view,
    allow_edits=True,
)
def flips(model: Classifier, other: Classifier, data: ClassFolder | LabelledImages) -> Steps[Report]:
    """What a second classifier knows that a first does not, and the other way round.

    Args:
        model: The first: a bundled name, a folder of transformers, a hub id, module:factory, or an ONNX file.
        other: The second, of the same classes in any order.
        data: Pictures in one sub-folder a class, named as the class.

    Returns:
        ``values``: ``accuracy`` and ``other_accuracy``; ``positive``, the share of all pictures that the second alone has right,
        and ``negative``, that the first alone has; ``both`` and ``neither``; the first four with Wilson intervals. ``rows``: the
        same by class, most positive flips first.

    Raises:
        ModelError: If their classes differ.
        DataError: If there is no picture, or pictures are in no sub-folders.

    Example:
        >>> flips(model, other, data).values["positive"]  # doctest: +SKIP
        0.12
    """
    order = class_order(model, other)
    images, labels = shown_classes(data, model.labels)
    if labels is None:
        raise DataError(
            "pictures: expected one sub-folder a class, named as the class, found pictures alone; sort them"
        )
    right = []
    for number, each in enumerate((model, other)):
        yield Event("looking", number, 2)
        logits = each.logits(images)  # (n, classes), the other's in its own order
        right.append(np.asarray((logits[:, order] if number else logits).argmax(1).numpy() == labels))
    values: dict[str, Any] = {"pictures": len(labels)} | _shares(*right)
    for key in ("accuracy", "other_accuracy", *SHARES):
        values[f"{key}_interval"] = list(wilson(round(values[key] * len(labels)), len(labels))[1:])
    rows = []
    for index in np.unique(labels).tolist():
        of_class = labels == index
        rows.append(
            {"class": model.labels[index], "pictures": int(of_class.sum())}
            | _shares(*(each[of_class] for each in right))
        )
    rows.sort(key=lambda row: (-row["positive"] * row["pictures"], row["class"]))
    facts = {"digests": [model.digest(), other.digest()], "names": [model.name, other.name]}
    return Report("flips", values, tuple(rows), facts)


def _shares(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    found = {"accuracy": first, "other_accuracy": second, "positive": ~first & second, "negative": first & ~second}
    found |= {"both": first & second, "neither": ~(first | second)}
    return {name: float(each.mean()) for name, each in found.items()}
