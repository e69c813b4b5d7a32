"""A page of bags of concepts: each picture with its boxes over it, its objects, its relations and what was repaired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import UInt8

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Code, Figure, Gallery, Note, Section, Table, Text, View
from photopic.data.layout import Layout, Region
from photopic.data.picture_file import decode
from photopic.data.pixels import as_rgb
from photopic.knowledge.bag_file import check_picture, read_bags
from photopic.knowledge.bag_record import BagRecord
from photopic.knowledge.caption_text import write

SIDE = 384  # pixels of the shorter side of a shown picture, at least


@dataclass(frozen=True)
class ShownBags(Report):
    """Records with the pictures that could be read.

    Attributes:
        records: In the order of the file.
        pictures: Of each record; None where no folder was given.
    """

    records: tuple[BagRecord, ...] = ()
    pictures: tuple[UInt8[np.ndarray, "height width 3"] | None, ...] = ()


def bags_view(report: ShownBags) -> View:
    """One section a picture."""
    sections = [_section(record, image) for record, image in zip(report.records, report.pictures, strict=True)]
    return View("What pictures show", sections, f"{len(sections)} pictures of {report.values['records']} in the file.")


@method(
    paper="arXiv:2407.03314",
    command="knowledge show",
    examples=(
        "Example: photopic knowledge show scenes.jsonl --pictures scenes/ -o scenes.html",
        "One picture: photopic knowledge show scenes.jsonl --pictures scenes/ --picture scene-00003.png -o scene.html",
    ),
    view=bags_view,
)
def show(
    graph: Annotated[str, Flags("GRAPH"), Existing()],
    *,
    pictures: str = "",
    picture: str = "",
    most: Annotated[int, Ge(1)] = 20,
) -> Steps[ShownBags]:
    """Show bags of concepts as a page: each picture with its boxes, its objects, relations and repairs.

    Args:
        graph: JSON Lines of bags of concepts.
        pictures: Folder of the pictures; without it the page has none.
        picture: Name of the one picture to show; by default the first ones.
        most: How many are shown at most.

    Returns:
        One row a picture with its numbers of objects, relations and repairs.

    Raises:
        DataError: If no record is of the picture, or a picture is not the one that was described.

    Example:
        >>> show("scenes.jsonl", pictures="scenes/").rows[0]["objects"]  # doctest: +SKIP
        3
    """
    kept: list[Any] = []
    count = 0
    for record in read_bags(graph):
        count += 1
        if len(kept) < most and (not picture or (record.image and record.image.name == picture)):
            yield Event("reading", len(kept))
            kept.append((record, _picture(record, pictures) if pictures else None))
    if not kept:
        raise DataError(f"{graph}: expected a record of {picture or 'a picture'}, found none; check its name")
    rows = tuple(
        {
            "picture": _name(record),
            "objects": len(record.bag.objects),
            "relations": len(record.bag.relations),
            "repairs": len(record.repairs),
        }
        for record, _ in kept
    )
    records, images = (tuple(each) for each in zip(*kept, strict=True))
    return ShownBags("bags of concepts", {"records": count}, rows, {"graph": Path(graph).name}, records, images)


def overlay(
    record: BagRecord, image: UInt8[np.ndarray, "height width 3"]
) -> UInt8[np.ndarray, "large_height large_width 3"]:
    """A picture with the boxes of its objects and their names over it, small pictures enlarged.

    Args:
        record: With boxes in pixels of the picture.
        image: RGB.
    """
    height, width = image.shape[:2]
    scale = max(1, -(-SIDE // min(height, width)))
    large = image.repeat(scale, 0).repeat(scale, 1)  # (h, w, 3) -> (h * scale, w * scale, 3)
    sides = np.array([width, height, width, height])
    boxed = [(item.name, np.clip(np.array(item.box) / sides, 0, 1)) for item in record.bag.objects if item.box]
    regions = tuple(Region(name, tuple(map(float, box))) for name, box in boxed if (box[:2] < box[2:]).all())  # type: ignore[arg-type]
    return Layout(regions, may_overlap=True).preview(large) if regions else large


def _section(record: BagRecord, image: UInt8[np.ndarray, "..."] | None) -> Section:
    bag = record.bag
    blocks: list[Any] = []
    if image is not None:
        blocks.append(
            Gallery(
                [
                    Figure(
                        overlay(record, image), f"{len(bag.objects)} objects", alt=bag.theme or "the picture with boxes"
                    )
                ]
            )
        )
    overall = (bag.style, bag.theme, *bag.background, *bag.foreground)
    blocks.append(Text(". ".join(filter(None, overall)) + "."))
    header = ("object", "alive", "place", "description", "colour", "box")
    blocks.append(Table(header, [list(_cells(item)) for item in bag.objects]))
    if bag.relations:
        related = [
            (each.subject, each.predicate, each.object, "outside the list" if each.external else "")
            for each in bag.relations
        ]
        blocks.append(Table(("subject", "predicate", "object", ""), related))
    if record.repairs:
        blocks.append(Note("; ".join(record.repairs), f"{len(record.repairs)} repairs"))
    blocks.append(Code(write(bag)))
    return Section(_name(record), blocks)


def _cells(item: Any) -> Iterator[str]:
    yield item.name
    yield {True: "yes", False: "no", None: ""}[item.living]
    yield item.place or ""
    yield ". ".join(item.description)
    yield ". ".join(item.colour)
    yield ", ".join(map(str, item.box or ()))


def _picture(record: BagRecord, folder: str) -> UInt8[np.ndarray, "height width 3"]:
    content = check_picture(record, folder)
    name = Path(_name(record))
    return np.asarray(as_rgb(decode(content, name), name))


def _name(record: BagRecord) -> str:
    return record.image.name if record.image else "a picture without a name"
