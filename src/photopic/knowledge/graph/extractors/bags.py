"""Bags of concepts beside pictures, in ``bags.jsonl``: what a picture contains, and how its objects stand to each other."""

from __future__ import annotations

import json

from photopic.core.digests import hashed
from photopic.core.errors import DataError
from photopic.knowledge.bag_record import to_json
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.extractors._bags import bag_found
from photopic.knowledge.graph.records import Found
from photopic.knowledge.graph.thing import Thing


def reads(thing: Thing) -> str | None:
    """The bag, and the file and picture it is of; nothing where there is none."""
    return hashed(json.dumps([thing.key, thing.content, to_json(thing.bag)]).encode()) if thing.bag else None


def extract(thing: Thing) -> Found:
    """Objects and relations; each object names who says so.

    Raises:
        DataError: If the bag was made of another file of this name.
    """
    assert thing.bag is not None, "a thing without a bag is not read"
    stated = thing.bag.image.sha256 if thing.bag.image else ""
    if stated and stated != thing.content:
        raise DataError(
            f"{thing.uri}: expected the picture that its bag was made of, with sha256 {stated[:12]}, found {thing.content[:12]}; "
            "describe it again"
        )
    return bag_found(thing.key, thing.bag.bag, annotator=thing.bag.source)


EXTRACTOR = Extractor("bags", 1, reads, extract)
