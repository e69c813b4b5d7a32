"""How grounded objects and detections are shown: the picture with a box and a name for each, and a table of boxes and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from photopic.core.results import Map
from photopic.core.view import Figure, Gallery, Section, Table, View
from photopic.data.layout import PALETTE
from photopic.data.overlays import enlarged

SIDE = 384  # pixels of the shown picture's shorter side, about
Named = tuple[str, Sequence[int]]  # name and box


def boxes_over(
    image: UInt8[np.ndarray, "height width 3"], boxes: Sequence[Named], side: int = SIDE
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with an outline and a name for each box.

    Args:
        image: RGB.
        boxes: Names and boxes in pixels of the picture.
        side: About so many pixels of the shorter side.

    Example:
        >>> boxes_over(np.zeros((64, 64, 3), np.uint8), [("owl 1", (7, 20, 25, 44))], side=128).shape
        (128, 128, 3)
    """
    large = Image.fromarray(enlarged(image, side))
    scale = large.width / image.shape[1]
    pen, font = ImageDraw.Draw(large), ImageFont.load_default(max(8, large.height // 24))
    for number, (name, box) in enumerate(boxes):
        colour = PALETTE[number % len(PALETTE)]
        left, top, right, bottom = (round(edge * scale) for edge in box)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=max(1, large.width // 128))
        text = pen.textbbox((left, top), name, font)
        # a name that would leave the picture is moved in
        at = (min(left, large.width - (text[2] - text[0])), min(top, large.height - (text[3] - top)))
        pen.rectangle(pen.textbbox(at, name, font), fill=colour)
        pen.text(at, name, (255, 255, 255), font)
    return np.array(large)


def grounding_view(found: Map) -> View:
    """The objects of a graph: where each is, or that it was not found."""
    about = found.provenance
    rows = [(name, box, about["scores"].get(name, "")) for name, box in about["boxes"].items()]
    count = sum(box is not None for _, box, _ in rows)
    lead = f"{count} of {len(rows)} objects found among {about['candidates']} regions; a score counts above {about['threshold']}."
    return _view(found, "Where the objects are", rows, lead)


def detection_view(found: Map) -> View:
    """The regions that have a name."""
    about = found.provenance
    rows = [(each["name"], each["box"], each["score"]) for each in about["found"]]
    lead = f"{len(rows)} of {about['candidates']} regions have a name; a score counts above {about['threshold']}."
    return _view(found, "What was found", rows, lead)


def _view(found: Map, title: str, rows: Sequence[tuple[str, Sequence[int] | None, object]], lead: str) -> View:
    assert found.images is not None  # both methods keep the picture
    over = boxes_over(found.images[0], [(name, box) for name, box, _ in rows if box is not None])
    cells = [(name, *(box or ("not found", "", "", "")), score) for name, box, score in rows]
    head = ("object", "left", "top", "right", "bottom", "score")
    table = Table(head, cells, "Boxes in pixels, right and bottom exclusive.")
    return View(title, [Section("", [Gallery([Figure(over, "The picture with its boxes.")]), table])], lead)
