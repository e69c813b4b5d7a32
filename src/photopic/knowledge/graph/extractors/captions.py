"""Captions beside pictures: a text that describes its picture and mentions its words."""

from __future__ import annotations

from photopic.core.digests import hashed
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.extractors._captions import caption_found
from photopic.knowledge.graph.records import Found
from photopic.knowledge.graph.thing import Thing


def reads(thing: Thing) -> str | None:
    """The caption and which picture it is of; nothing where there is none."""
    return hashed(f"{thing.key} {thing.caption}".encode()) if thing.caption else None


def extract(thing: Thing) -> Found:
    """The text, its words, and what it describes."""
    return caption_found(thing.key, thing.caption or "")


EXTRACTOR = Extractor("captions", 1, reads, extract)
