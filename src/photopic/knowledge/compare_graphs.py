"""Measuring predicted graphs against true ones: objects, relations and attributes, honestly and as it was published.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314). Changed: the scores that count are over all
pictures with one-to-one matching; the published ones stand beside them. The exact properties of both are in
tests/metrics/test_scene_graph.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Lt

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.knowledge._compare_view import KINDS, compare_view
from photopic.knowledge.bag_file import lines_of, read_bags, record_of
from photopic.knowledge.bag_of_concepts import BagOfConcepts
from photopic.knowledge.bag_record import BagRecord
from photopic.metrics.intervals import bootstrap
from photopic.metrics.scene_graph import MATCH_IOU, Comparison, compare, means
from photopic.metrics.scene_graph_published import detection, triples_right


@method(
    paper="arXiv:2407.03314",
    command="measure graph",
    examples=("Example: photopic measure graph predicted.jsonl truth.jsonl -o graph.html",),
    view=compare_view,
)
def compare_graphs(
    predicted: Annotated[str, Flags("PREDICTED"), Existing()],
    truth: Annotated[str, Flags("TRUTH"), Existing()],
    *,
    iou: Annotated[float, Ge(0), Lt(1)] = MATCH_IOU,
    seed: Annotated[int, Ge(0)] = 0,
) -> Steps[Report]:
    """How much of the truth predicted graphs tell: objects, relations and attributes of each picture.

    Args:
        predicted: JSON Lines of predicted bags of concepts; a line that cannot be read counts as a picture of which nothing was
            predicted.
        truth: JSON Lines of true ones; the lines go together by the names of their pictures, without names by their order.
        iou: Boxes of one object overlap by more than this.
        seed: Seed of the intervals and of the control, in which each prediction meets another picture's truth.

    Returns:
        One row a picture with the F1 of each kind; in the values the means over all pictures with intervals, the same of all
        counts together, the published scores and the control.

    Raises:
        DataError: If a true line cannot be read, two lines are of one picture, or a prediction is of a picture without truth.

    Example:
        >>> compare_graphs("predicted.jsonl", "truth.jsonl").values["f1"]["objects"]  # doctest: +SKIP
        (0.81, 0.78, 0.84)
    """
    true = _by_picture(list(read_bags(truth)), truth)
    told, problems = _predictions(Path(predicted))
    own = _by_picture(told, predicted)
    if strangers := [name for name in own if name not in true]:
        raise DataError(
            f"{predicted}: {strangers[0]}: expected a picture of {truth}, found none of this name; compare the same pictures"
        )
    bags = [own[name].bag if name in own else BagOfConcepts() for name in true]
    truths = [record.bag for record in true.values()]
    found = []
    for done, (bag, other) in enumerate(zip(bags, truths, strict=True)):
        yield Event("comparing", done, len(bags))
        found.append(compare(bag, other, iou=iou))
    order = np.random.default_rng(seed).permutation(len(truths))
    shuffled = [
        compare(bag, truths[place], iou=iou)
        for bag, place in zip(bags, np.roll(order, 1)[np.argsort(order)], strict=True)
    ]
    rows = tuple(
        {
            "picture": name,
            **{kind: getattr(each, kind).f1 for kind in KINDS},
            "problem": "" if name in own else "nothing was predicted",
        }
        for name, each in zip(true, found, strict=True)
    )
    values = _values(found, seed) | {
        "published": dict[str, float](asdict(detection(bags, truths)), triples_right=triples_right(bags, truths)),
        "shuffled": {kind: means(shuffled, kind)["f1"] for kind in KINDS},
        "predicted": len(told) + problems,
        "read": len(told),
        "repairs": float(np.mean([float(len(each.repairs)) for each in told] or [0.0])),
    }
    return Report("graphs", values, rows, {"files": [Path(predicted).name, Path(truth).name], "seed": seed})


def _values(found: Sequence[Comparison], seed: int) -> dict[str, Any]:
    total = sum(found, Comparison())
    micro = {kind: getattr(total, kind) for kind in KINDS}
    return {
        "pictures": len(found),
        "f1": {kind: tuple(bootstrap([getattr(each, kind).f1 for each in found], seed=seed)) for kind in KINDS},
        "macro": {kind: means(found, kind) for kind in KINDS},
        "micro": {
            kind: {name: getattr(each, name) for name in ("precision", "recall", "f1")} for kind, each in micro.items()
        },
        "attribute_accuracy": total.attributes_of_matched.recall,
        "mean_iou": total.mean_iou,
    }


def _predictions(path: Path) -> tuple[list[BagRecord], int]:
    """The records that can be read, and how many cannot."""
    found, problems = [], 0
    for _, stated in lines_of(path):
        try:
            found.append(record_of(stated))
        except DataError:
            problems += 1
    return found, problems


def _by_picture(records: Sequence[BagRecord], path: str) -> dict[str, BagRecord]:
    """Records by the names of their pictures, or by their places where none has a name."""
    if not records:
        raise DataError(f"{path}: expected bags of concepts, found none")
    if all(record.image is None for record in records):
        return {f"line {number}": record for number, record in enumerate(records, start=1)}
    named: dict[str, BagRecord] = {}
    for number, record in enumerate(records, start=1):
        name = record.image.name if record.image else ""
        if not name or name in named:
            raise DataError(
                f"{path}: record {number}: expected the name of a picture of its own, found {name or 'none'!r}"
            )
        named[name] = record
    return named
