"""The concept table of the emoji world as a graph: names, keywords, groups, variants and all drawings of a concept."""

from __future__ import annotations

from collections import Counter
from functools import cache

from photopic.data import emoji_world
from photopic.data.emoji_world import Concept
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.records import Edge, End, Found, Node, normalised
from photopic.knowledge.graph.thing import CONCEPTS, Thing

LICENCES = {
    "noto": "Apache-2.0",
    "twemoji": "CC-BY-4.0",
    "openmoji": "CC-BY-SA-4.0",
    "fluent": "MIT",
}  # by style's first word


def reads(thing: Thing) -> str | None:
    """The concept and the table it stands in."""
    return thing.content if thing.of == CONCEPTS else None


def extract(thing: Thing) -> Found:
    """What the table says of the concept that a thing is."""
    return concept_found(thing.subject)


def concept_found(concept: Concept) -> Found:
    """What the table says of one concept.

    A drawing's key is ``style/name``: 434 drawings look as another one does and are drawings of different concepts all the same. Of
    keywords those count that two concepts have, and none that is the concept's own name.

    Args:
        concept: Of ``emoji_world.concepts()``.

    Example:
        >>> found = concept_found(emoji_world.concept("panda"))
        >>> [edge.tail[1] for edge in found.edges if edge.relation == "of event"]
        ['animals-nature', 'animals-nature/animal-mammal']
    """
    name: End = ("text", normalised(concept.name))
    base = {"base": concept.base}
    drawings: list[End] = [("image", f"{style}/{concept.name}") for style in concept.styles]
    facts: list[End] = [("fact", concept.group), ("fact", f"{concept.group}/{concept.subgroup}")]
    words: list[End] = [("entity", word) for word in _keywords(concept) if word != concept.name and _uses()[word] > 1]
    nodes = [
        Node("text", name[1], concept.name, attributes=base),
        *(Node(*fact) for fact in facts),
        *(Node(*word) for word in words),
        *(_drawing(concept, style) for style in concept.styles),
    ]
    edges = [
        *(Edge(name, "of event", fact) for fact in facts),
        *(Edge(name, "mentions", word) for word in words),
        *(Edge(name, "describes", drawing) for drawing in drawings),
        *(Edge(drawings[0], "same thing", other) for other in drawings[1:]),  # a star: the first style is the hub
    ]
    if concept.is_variant:
        edges.append(Edge(name, "continues", ("text", normalised(concept.base))))
    return Found(tuple(nodes), tuple(edges))


def _drawing(concept: Concept, style: str) -> Node:
    key = f"{style}/{concept.name}"
    licence = LICENCES[style.partition("-")[0]]
    attributes = {"base": concept.base, "licence": licence, "style": style}
    return Node("image", key, f"{concept.name} ({style})", (key,), attributes)


def _keywords(concept: Concept) -> list[str]:
    return sorted(set(concept.keywords))


@cache
def _uses() -> Counter[str]:
    """In how many concepts each keyword stands."""
    return Counter(word for concept in emoji_world.concepts() for word in _keywords(concept))


EXTRACTOR = Extractor("emoji_concepts", 1, reads, extract)
