"""Bags of concepts of any letters, for properties that hold for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from photopic.core.errors import DataError
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation, folded, in_order

# marks, headings and quotations are likelier than chance would have them
MARKS = tuple(';.()<>[]%&"“”{},*\\#-:1')
ODD = st.sampled_from((*MARKS, "%%", "&&", ". ", "Part2: List of objects", "Color information:", "(Living;"))
WORDS = st.lists(ODD | st.text(max_size=6) | st.sampled_from(("owl", "tree", "it sleeps", "o")), min_size=1, max_size=6)
TEXTS = WORDS.map("".join)
SENTENCES = st.lists(TEXTS, max_size=3)
BOXES = st.tuples(*[st.integers(-9, 600)] * 2, *[st.integers(1, 700)] * 2)  # left, top, width, height
NAMES = TEXTS | st.tuples(st.sampled_from(("owl", "Tree", "sign")) | TEXTS, st.integers(1, 12)).map(
    "{0[0]} {0[1]}".format
)
OBJECT = st.tuples(
    NAMES,
    st.sampled_from((True, False, None)),
    st.sampled_from(("foreground", "background", "both", None)),
    SENTENCES,
    SENTENCES,
    BOXES | st.none(),
)
ENDS = st.integers(0, 4) | TEXTS  # the number of an object, or other words
# what ``bag_of`` makes a bag of: the library's own types are checked at random places, which a strategy may not be
DRAFTS = st.tuples(
    st.tuples(TEXTS | st.just(""), TEXTS | st.just("")),
    st.tuples(SENTENCES, SENTENCES),
    st.lists(OBJECT, max_size=5),
    st.lists(st.tuples(ENDS, TEXTS, ENDS), max_size=5),
)


def bag_of(draft: Any) -> BagOfConcepts:
    """A bag of up to five objects; relations end at listed names or at words that stand for none."""
    (style, theme), (background, foreground), drawn, triples = draft
    objects = {}
    for name, living, place, description, colour, box in drawn:
        if (name := in_order(name)) and folded(name) not in objects:
            edges = box and (box[0], box[1], box[0] + box[2], box[1] + box[3])
            objects[folded(name)] = ConceptObject(name, living, place, _texts(description), _texts(colour), edges)
    listed = tuple(objects.values())
    return BagOfConcepts(
        in_order(style),
        in_order(theme),
        _texts(background),
        _texts(foreground),
        listed,
        tuple(_related(listed, triples)),
    )


def _texts(drawn: list[str]) -> tuple[str, ...]:
    return tuple(filter(None, map(in_order, drawn)))


def _related(objects: tuple[ConceptObject, ...], triples: list[tuple[Any, str, Any]]) -> Iterator[Relation]:
    for first, predicate, second in triples:
        ends = [
            objects[end % len(objects)].name if isinstance(end, int) and objects else in_order(str(end))
            for end in (first, second)
        ]
        try:
            relation = Relation(ends[0], in_order(predicate), ends[1])
            yield BagOfConcepts(objects=objects, relations=(relation,)).relations[0]
        except DataError:
            continue  # nothing but blanks, or an end that stands for listed objects under other words
