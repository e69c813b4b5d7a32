"""Reading a bag of concepts from any text that language models make of one: what can be read is kept, each repair is told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from photopic.core.errors import DataError, printable
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Names
from photopic.knowledge.caption_damage import Damage, Parsed
from photopic.knowledge.caption_marks import FOREIGN, hidden, shown
from photopic.knowledge.caption_objects import objects, sentences
from photopic.knowledge.caption_relations import boxes, relations
from photopic.knowledge.caption_sections import Span, sections

EXPECTED = {"1.1": "style", "1.2": "theme", "1.3": "background", "1.4": "foreground", "2": "objects", "3": "relations"}
_STOP = re.compile(r"\.\s*\Z")


def recover(text: str) -> Parsed:
    """Read a bag; see ``caption_text.parse``.

    Raises:
        DataError: If no section and no object is found.
    """
    damage = Damage(text)
    marked = hidden(text)
    for letter in FOREIGN.finditer(text):
        damage.note("letter", *letter.span(), "a letter that no text may hold is replaced")
    spans = sections(marked, damage)
    if not spans:
        raise DataError(
            "expected the text of a bag of concepts, found no section of it: "
            f"{printable(repr(text[:60]))}; it begins with %%Part1: Overall description%%"
        )
    for key, name in EXPECTED.items():
        if key not in spans:
            damage.note("missing section", len(text), len(text), f"nothing on {name}")
    listed, others = objects(marked, spans.get("2", ()), damage)
    for start, end in others:
        damage.note("unread", start, end, "words that are no object are left out")
    names = Names([item.name for item in listed])
    related = relations(marked, spans.get("3", ()), names, damage)
    placed = boxes(marked, spans.get("4", ()), names, damage)
    bag = BagOfConcepts(
        style=_one(marked, spans.get("1.1", ())),
        theme=_one(marked, spans.get("1.2", ())),
        background=_all(marked, spans.get("1.3", ())),
        foreground=_all(marked, _foreground(marked, spans)),
        objects=tuple(replace(item, box=placed.get(item.name)) for item in listed),
        relations=tuple(related),
    )
    return Parsed(bag, damage.in_order())


def _foreground(text: str, spans: Mapping[str, Sequence[Span]]) -> list[Span]:
    """Where the foreground is described; with it words of the overall description that stand under no heading."""
    return [*spans.get("1", ()), *spans.get("1.4", ())]


def _one(text: str, spans: Sequence[Span]) -> str:
    return " ".join(filter(None, (shown(_STOP.sub("", text[start:end])) for start, end in spans)))


def _all(text: str, spans: Sequence[Span]) -> tuple[str, ...]:
    return tuple(each for start, end in spans for each in sentences(text, start, end))
