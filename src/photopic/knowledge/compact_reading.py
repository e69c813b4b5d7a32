"""Reading the short form that the bundled captioner writes as a bag of concepts; what does not fit is left out, and told.

``compact_caption`` says what the form is. A network writes any words in any order, so each word is taken where it can stand: an
object without its four edges has no box, a relation to an object that was not named is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from photopic.core.errors import DataError
from photopic.data.emoji_world import STYLES
from photopic.data.renderings import classes
from photopic.data.scenes import COLOURS, NUMBER_WORDS, RELATIONS, STYLE_WORDS, Background, plural, with_article
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject, Relation
from photopic.knowledge.caption_damage import Damage, Parsed
from photopic.knowledge.compact_caption import KINDS, SIDE, word
from photopic.knowledge.scene_bags import is_living

Word = re.Match[str]  # a word with its place in the text


def read_compact(text: str, size: tuple[int, int] = (SIDE, SIDE)) -> Parsed:
    """Read a bag from its short form.

    Args:
        text: As the captioner wrote it.
        size: Width and height of the picture, in whose pixels the boxes will be.

    Raises:
        DataError: If no object is named.

    Example:
        >>> found = read_compact("noto flat red owl 7 20 25 44 bear 36 21 60 43 #1 left_of #2")
        >>> [item.name for item in found.bag.objects], found.bag.relations[0].predicate, found.repairs
        (['owl 1', 'bear 1'], 'left of', ())
    """
    damage, words = Damage(text), list(re.finditer(r"\S+", text))
    first = next((place for place, each in enumerate(words) if each[0] in _names()), None)
    if first is None:
        raise DataError(f"expected the words of a bag of concepts, found no name of an object: {text[:60]!r}")
    style, ground = _overall(words[:first], damage)
    rest, listed, counts = words[first:], [], Counter[str]()
    ends = [place for place, each in enumerate(rest) if each[0] in _names()]
    tail = next((place for place, each in enumerate(rest) if each[0].startswith("#")), len(rest))
    for begin, end in zip(ends, [*ends[1:], len(rest)], strict=True):
        counts[name := _names()[rest[begin][0]]] += 1
        described = (f"{STYLE_WORDS[style]} style",) if style else ()
        colour, box = _details(rest[begin + 1 : min(end, max(tail, begin + 1))], size, damage)
        listed.append(ConceptObject(f"{name} {counts[name]}", is_living(name), "foreground", described, colour, box))
    bag = BagOfConcepts(
        style=f"{STYLE_WORDS[style]} style" if style else "",
        theme=" and ".join(sorted(counts)),
        background=(ground.phrase,) if ground else (),
        foreground=tuple(_counted(name, count) for name, count in counts.items()),
        objects=tuple(listed),
        relations=tuple(_relations(rest[tail:], [item.name for item in listed], damage)),
    )
    return Parsed(bag, damage.in_order())


@cache
def _names() -> dict[str, str]:
    return {word(name): name for name in classes()}


def _overall(words: Sequence[Word], damage: Damage) -> tuple[str, Background | None]:
    """The style and the background, from the words before the first object."""
    said = [each[0] for each in words]
    style = next((each for each in said if each in STYLES), "")
    kind = next((each for each in said if each in KINDS), "")
    colours = [each for each in said if each in COLOURS]
    for each in words:
        if each[0] not in STYLES and each[0] not in KINDS and each[0] not in COLOURS:
            damage.note("unread", *each.span(), "a word before the objects that is neither style nor background")
    if not colours or (kind == "gradient" and len(colours) < 2):
        damage.note("missing section", 0, 0, "the colours of the background")
        return style, None
    return style, Background(colours[0], kind or "flat", colours[1] if kind == "gradient" else None)


def _details(words: Sequence[Word], size: tuple[int, int], damage: Damage) -> tuple[tuple[str, ...], Box | None]:
    """Colour and box of an object, from the words between its name and the next."""
    colour = tuple(each[0] for each in words if each[0] in COLOURS)[:1]
    numbers = [int(each[0]) for each in words if each[0].isdigit()]
    for each in words:
        if not each[0].isdigit() and each[0] not in colour:
            damage.note("unread", *each.span(), "a word after an object that is neither its colour nor an edge")
    if len(numbers) != 4 or not (numbers[0] < numbers[2] <= SIDE and numbers[1] < numbers[3] <= SIDE):
        at = words[0].start() if words else len(damage.text)
        damage.note(
            "position", at, words[-1].end() if words else at, "an object without four edges in order has no box"
        )
        return colour, None
    left, top, right, bottom = (round(edge * side / SIDE) for edge, side in zip(numbers, size * 2, strict=True))
    return colour, (left, top, max(right, left + 1), max(bottom, top + 1))


def _relations(words: Sequence[Word], names: Sequence[str], damage: Damage) -> Iterator[Relation]:
    """Relations between objects by their numbers, each three words; a pair that was related counts once."""
    predicates, seen = {word(relation): relation for relation in RELATIONS}, set()
    numbers = {f"#{place}": name for place, name in enumerate(names, start=1)}
    place = 0
    while place < len(words):
        said = [each[0] for each in words[place : place + 3]]
        span = words[place].start(), words[min(place + 2, len(words) - 1)].end()
        fits = len(said) == 3 and said[0] in numbers and said[1] in predicates and said[2] in numbers
        if not fits or said[0] == said[2]:
            damage.note("incomplete relation", *span, "expected two numbers of objects with a relation between")
            place += 3 if fits else 1
            continue
        pair = frozenset((said[0], said[2]))
        if pair in seen:
            damage.note("chained relation", *span, "a pair that is related already")
        else:
            yield Relation(numbers[said[0]], predicates[said[1]], numbers[said[2]])
        seen.add(pair)
        place += 3


def _counted(name: str, count: int) -> str:
    many = NUMBER_WORDS.get(count, str(count))
    return with_article(name) if count == 1 else f"{many} {plural(name)}"
