"""A picture file as a node: its key is the hash of its pixels, so that one picture under two names is one node."""

from __future__ import annotations

from photopic.data.picture_file import decode
from photopic.data.pixels import as_rgb
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.records import Found, Node
from photopic.knowledge.graph.thing import FOLDER, Thing, pixel_key

COPYRIGHT = 0x8298  # number of the EXIF field


def reads(thing: Thing) -> str | None:
    """The content of a file."""
    return thing.content if thing.of == FOLDER else None


def extract(thing: Thing) -> Found:
    """One node with size and, where the file tells it, licence.

    Raises:
        DataError: If the file is no picture.
    """
    opened = decode(thing.subject, thing.uri)
    image = as_rgb(opened, thing.uri)
    attributes = {"width": image.width, "height": image.height}
    licence = " ".join(str(opened.getexif().get(COPYRIGHT, "")).split())
    return Found((Node("image", pixel_key(image), attributes=attributes | ({"licence": licence} if licence else {})),))


EXTRACTOR = Extractor("pictures", 1, reads, extract)
