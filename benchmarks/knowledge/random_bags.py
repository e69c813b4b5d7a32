"""Bags of concepts of any letters, and the damage that language models do to their texts: drawn from a seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from photopic.core.errors import DataError
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject, Place, Relation, folded, in_order
from photopic.knowledge.caption_damage import Parsed
from photopic.knowledge.caption_marks import hidden, shown
from photopic.knowledge.caption_text import write

# marks, headings, quotations and odd letters are likelier than chance would have them
PIECES = (
    *";.()<>[]%&\"“”{},*\\#-:1", " ", "\n", "%%", "&&", ". ", "Part2: List of objects", "Color information:", "(Living;", "<owl 1>",
    "owl", "tree", "it sleeps", "1.5 m", "o", "é", "貓", "\u0301", "🦉", "\u202e",
)  # fmt: skip
WORDS = 'owl branch night white sleeps quiet 1.5 wing\'s old-fashioned (small) "a; b" snowy beak forest light'.split(
    " "
)
# words that stand in every text; all others belong to what is told
FRAME = set(
    re.findall(
        r"\w+",
        write(BagOfConcepts(objects=(ConceptObject("a 1", True, "both", ("a",), ("a",), (0, 0, 1, 1)),))).lower(),
    )
)
FRAME |= {"inanimate", "120px", "px", "and", "or", "the", "a", "an", "part", "1", "2", "3", "4"}


def odd_text(draw: random.Random) -> str:
    """A few pieces in a row; never empty."""
    return in_order("".join(draw.choices(PIECES, k=draw.randint(1, 6)))) or "o"


def plain_text(draw: random.Random) -> str:
    """A sentence of ordinary words, some with brackets, quotations and numbers."""
    return " ".join(draw.choices(WORDS, k=draw.randint(2, 8)))


def random_bag(draw: random.Random, text: Callable[[random.Random], str] = odd_text) -> BagOfConcepts:
    """A bag of up to five objects; relations end at listed names or at words that stand for none."""

    def texts() -> tuple[str, ...]:
        return tuple(text(draw) for _ in range(draw.randint(0, 3)))

    objects: dict[str, ConceptObject] = {}
    for _ in range(draw.randint(0, 5)):
        name = draw.choice([text(draw), f"{draw.choice(['owl', 'Tree', 'sign', text(draw)])} {draw.randint(1, 12)}"])
        place: Place | None = draw.choice([*get_args(Place), None])
        item = ConceptObject(name, draw.choice([True, False, None]), place, texts(), texts(), _box(draw))
        objects.setdefault(folded(name), item)
    listed = tuple(objects.values())
    names = [item.name for item in listed] or ["owl"]
    triples = [
        Relation(draw.choice([*names, text(draw)]), text(draw), draw.choice([*names, text(draw)]))
        for _ in range(draw.randint(0, 5))
    ]
    one = draw.choice(["", text(draw)])
    return BagOfConcepts(one, text(draw), texts(), texts(), listed, tuple(_allowed(listed, triples)))


def damaged(text: str, draw: random.Random) -> str:
    """A text after one to three accidents: cuts, lost and doubled marks, lines and letters, other headings, words around it."""
    for _ in range(draw.randint(1, 3)):
        text = draw.choice(ACCIDENTS)(text, draw)
    return text


def lost_words(text: str, parsed: Parsed) -> Counter[str]:
    """Words of a text that are neither in the bag read from it nor in what a repair points at.

    Nothing may be lost silently, so this is empty for every text. Words of the frame (headings, ``Living``) do not count.
    """
    kept = Counter(_words(write(parsed.bag)))
    kept.update(word for repair in parsed.repairs for word in _words(text[repair.start : repair.end]))
    return Counter({word for word in _words(text) if word not in FRAME and not kept[word]})


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+?(?=px\b|\b|_)", shown(hidden(text)).casefold())  # 9px is 9


def _box(draw: random.Random) -> Box | None:
    left, top = draw.randint(-9, 600), draw.randint(-9, 600)
    return draw.choice([None, (left, top, left + draw.randint(1, 700), top + draw.randint(1, 700))])


def _allowed(objects: tuple[ConceptObject, ...], relations: Sequence[Relation]) -> Iterator[Relation]:
    for relation in relations:
        try:
            yield BagOfConcepts(objects=objects, relations=(relation,)).relations[0]
        except DataError:
            continue  # an end that stands for listed objects under other words


def _cut(text: str, draw: random.Random) -> str:
    return text[: draw.randrange(len(text) + 1)]


def _lose_mark(text: str, draw: random.Random) -> str:
    places = [found.start() for found in re.finditer(r"%%|&&|[<>\[\]();.\"{}%&\\]", text)]
    place = draw.choice(places or [0])
    return text[:place] + text[place + draw.choice([1, 2]) :]


def _add_mark(text: str, draw: random.Random) -> str:
    place = draw.randrange(len(text) + 1)
    return (
        text[:place]
        + draw.choice(("%%", "&&", "<", ">", "[", "]", "(", ")", ";", ". ", '"', "“", "{", "\\", "\n"))
        + text[place:]
    )


def _lines(change: Callable[[list[str], int], object]) -> Callable[[str, random.Random], str]:
    def changed(text: str, draw: random.Random) -> str:
        lines = text.split("\n")
        change(lines, draw.randrange(len(lines)))
        return "\n".join(lines)

    return changed


def _translate(text: str, draw: random.Random) -> str:
    words = {
        "Overall description": "Gesamtbild",
        "Style": "Stil",
        "List of objects": "Liste der Dinge",
        "Relationships": "Beziehungen",
    }
    for word, other in words.items():
        text = text.replace(word, other)
    return text.replace("Part", draw.choice(["Teil ", "Partie ", "", "Part "]))


ACCIDENTS: tuple[Callable[[str, random.Random], str], ...] = (
    _cut,
    _lose_mark,
    _lose_mark,
    _add_mark,
    _translate,
    _lines(lambda lines, at: lines.pop(at)),
    _lines(lambda lines, at: lines.insert(at, lines[at])),
    _lines(lambda lines, at: lines.insert(at, "Certainly! Here it is.")),
    _lines(lambda lines, at: lines.__setitem__(slice(at, at + 2), [" ".join(lines[at : at + 2])])),
    _lines(lambda lines, at: lines.__setitem__(at, lines[at].lower())),
    _lines(lambda lines, at: lines.__setitem__(at, lines[at].replace("; ", "; half; ", 1))),
    lambda text, draw: text.replace("\n", " "),
    lambda text, draw: f"```\n{text}```",
)
