"""The truth of composed scenes: their objects with boxes, how these stand to each other, and the caption."""

from __future__ import annotations

from photopic.data.picture_set import SCENES
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.extractors._bags import bag_found
from photopic.knowledge.graph.extractors._captions import caption_found
from photopic.knowledge.graph.records import Found, Node
from photopic.knowledge.graph.thing import Thing, pixel_key
from photopic.knowledge.scene_bags import bag_of_scene

LICENCE = "several: see NOTICE"  # of the drawings in a scene


def reads(thing: Thing) -> str | None:
    """The scene."""
    return thing.content if thing.of == SCENES else None


def extract(thing: Thing) -> Found:
    """All that is true of a scene and that the protocol has a relation for."""
    scene = thing.subject
    height, width, _ = scene.image.shape
    attributes = {"width": width, "height": height, "licence": LICENCE}
    picture = Node("image", pixel_key(scene.image), attributes=attributes)
    bag, caption = bag_found(picture.key, bag_of_scene(scene)), caption_found(picture.key, scene.caption)
    return Found((picture, *bag.nodes, *caption.nodes), bag.edges + caption.edges)


EXTRACTOR = Extractor("scenes", 1, reads, extract)
