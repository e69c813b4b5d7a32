"""Sub-folders as facts: a picture in ``animals/bear`` belongs to the event ``animals`` and to the finer ``animals/bear``."""

from __future__ import annotations

from photopic.core.digests import hashed
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.records import Edge, Found, Node
from photopic.knowledge.graph.thing import Thing


def reads(thing: Thing) -> str | None:
    """The folders and which picture lies in them; nothing for a picture in none."""
    return hashed(f"{thing.key} {'/'.join(thing.labels)}".encode()) if thing.labels else None


def extract(thing: Thing) -> Found:
    """A fact for every folder on the way."""
    paths = ["/".join(thing.labels[: depth + 1]) for depth in range(len(thing.labels))]
    facts = tuple(Node("fact", path) for path in paths)
    picture = Node("image", thing.key)
    return Found((picture, *facts), tuple(Edge(picture.end, "of event", fact.end) for fact in facts))


EXTRACTOR = Extractor("class_folders", 1, reads, extract)
