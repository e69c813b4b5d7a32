"""What a caption states: objects, relation and background, read back from the grammar of ``photopic.data.scenes``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from photopic.core.errors import DataError
from photopic.data import emoji_world, scenes

TOKEN = re.compile(r"<[^<>\s]+>\s*")
JOINTS = (*scenes.RELATIONS, ",", "and")
WHERE = re.compile(r"^(?P<what>.+?) on an? (?P<background>[a-z ]+) background$")


@dataclass(frozen=True)
class ObjectFact:
    """One object a caption names.

    Attributes:
        concept: Name of the concept; for a customised subject the class noun behind its token.
        style: Style it is said to be drawn in, or None.
        colour: Colour it is said to have, or None.
        token: New word of a customised subject such as ``<mine>``, or None.
    """

    concept: str
    style: str | None = None
    colour: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Facts:
    """Everything a caption states.

    Attributes:
        objects: The objects in the order of the caption.
        count: How many there are of a counted concept ("two bears"), else None.
        relation: Relation of the first object to the second, or None.
        background: The background, or None where the caption is silent.
    """

    objects: tuple[ObjectFact, ...]
    count: int | None = None
    relation: str | None = None
    background: scenes.Background | None = None


def parse(caption: str) -> Facts:
    """Read a caption.

    Raises:
        DataError: If the caption does not follow the grammar; the message quotes the part that does not.

    Example:
        >>> parse("a twemoji bear left of a cat on a red background").relation
        'left of'
    """
    what, background = caption.strip(), None
    if (match := WHERE.match(what)) is not None:
        what, background = match["what"], _background(match["background"], caption)
    objects: list[ObjectFact] = []
    relation = count = None
    rest = what
    if not rest:
        raise _error(caption, caption)
    while rest:
        fact, number, rest = _object(rest, caption)
        objects.append(fact)
        count = number or count
        for joint in JOINTS:
            if rest.startswith(joint + " "):
                relation = joint if joint in scenes.RELATIONS else relation
                rest = rest[len(joint) + 1 :]
                break
        else:
            if rest:
                raise _error(rest, caption)
    return Facts(tuple(objects), count, relation, background)


def _object(text: str, caption: str) -> tuple[ObjectFact, int | None, str]:
    """The first object of ``text``, its number word and what follows it."""
    article, _, rest = text.partition(" ")
    numbers = {word: number for number, word in scenes.NUMBER_WORDS.items()}
    count = numbers.get(article)
    if article not in ("a", "an") and count is None:
        rest = text
    style = next((s for words, s in _style_words() if rest.startswith(words + " ")), None)
    rest = rest[len(scenes.STYLE_WORDS[style]) + 1 :] if style else rest
    token = match[0].strip() if (match := TOKEN.match(rest)) else None
    rest = rest[match.end() :] if match else rest
    names = _plurals() if count else _names()
    colour, found = None, _longest(rest, names)
    if found is None and (first := rest.partition(" "))[0] in scenes.COLOURS:
        colour, _, rest = first
        match = match or TOKEN.match(rest)  # "a red <mine> bear"
        token = token or (match[0].strip() if match else None)
        rest = TOKEN.sub("", rest, count=1)
        found = _longest(rest, names)
    if found is None:
        raise _error(rest, caption)
    return ObjectFact(names[found], style, colour, token), count, rest[len(found) :].lstrip()


def _longest(text: str, names: dict[str, str]) -> str | None:
    """The longest name ``text`` begins with that ends the text or stands before a joint."""
    words = re.split(r"(?=[ ,])", text)
    for length in range(min(len(words), 12), 0, -1):
        start, after = "".join(words[:length]), "".join(words[length:]).lstrip()
        if start in names and (not after or after.startswith(tuple(f"{joint} " for joint in JOINTS))):
            return start
    return None


def _background(phrase: str, caption: str) -> scenes.Background:
    words = phrase.split()
    if len(words) == 1 and words[0] in scenes.COLOURS:
        return scenes.Background(words[0])
    if len(words) == 2 and words[0] in scenes.TEXTURES and words[1] in scenes.COLOURS:
        return scenes.Background(words[1], words[0])
    if len(words) == 4 and words[1::2] == ["to", "gradient"] and {words[0], words[2]} <= scenes.COLOURS.keys():
        return scenes.Background(words[0], "gradient", words[2])
    raise _error(f"{phrase} background", caption)


def _error(part: str, caption: str) -> DataError:
    return DataError(
        f"caption {caption!r}: cannot read {part!r}; expected concepts of the emoji world as "
        "'a bear left of a cat on a striped red background'"
    )


@cache
def _names() -> dict[str, str]:
    return {item.name: item.name for item in emoji_world.concepts()}


@cache
def _plurals() -> dict[str, str]:
    return {scenes.plural(name): name for name in _names()}


@cache
def _style_words() -> tuple[tuple[str, str], ...]:
    pairs = ((words, style) for style, words in scenes.STYLE_WORDS.items())
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))
