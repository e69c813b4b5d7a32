"""A layout out of a prompt: a region for each thing it names, placed as its relations say.

"a <mine> bear left of a <cup> mug and a tree on a red background" names three things and one relation; places are found as for
graphs (``boxes_by_relations``) and moved to the middle of the picture. A thing is what stands between articles, commas, "and",
relations and the words that begin the ground. Planning boxes from words before drawing is LayoutGPT's idea (arXiv:2305.15393),
here by rules and without a language model, so that a prompt has one layout always. Measured with ``composition.*`` of
benchmarks/generate/composition.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from photopic.core.errors import DataError
from photopic.data.layout import Box, Layout
from photopic.data.scenes import NUMBER_WORDS
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.graph_drawing import region_of
from photopic.knowledge.relation_layout import SYNONYMS, boxes_by_relations


def _any(*words: str) -> str:
    """One of the words, as whole words, the longest that fits."""
    return rf"\b(?:{'|'.join(sorted(words, key=len, reverse=True))})\b"


_COUNTS = {"a": 1, "an": 1, "the": 1, "one": 1} | {word: number for number, word in NUMBER_WORDS.items()}
_FRAME = re.compile(r"(?:an? |the )?(?:[\w-]+ )?(?:photo|picture|painting|drawing|rendering|image) of ", re.IGNORECASE)
_BACKGROUND = rf"\s{_any('on', 'in front of', 'against', 'before')}[^,]*\bbackground\b.*"
_RELATION = _any(*SYNONYMS)
_PLACE = rf"\s{_any('in', 'at', 'inside', 'outside', 'during', 'against')}\s(?!.*{_RELATION}).*"
_GROUND = re.compile(rf"{_BACKGROUND}|{_PLACE}", re.IGNORECASE)
_JOINT = re.compile(rf"({_RELATION}|{_any('and', 'next to', 'beside', 'near')}|[,&])", re.IGNORECASE)
_EXTRA = re.compile(rf"\s{_any('with', 'wearing', 'holding')}\s.*", re.IGNORECASE)  # belongs to the thing before it


@dataclass(frozen=True)
class _Thing:
    """A noun phrase: as it is said, without its article, how many it says, and how the one before it stands to it."""

    said: str
    words: str
    count: int
    relation: str | None
    is_thing: bool


def layout_of_prompt(prompt: str, *, own_prompts: bool = False) -> Layout:
    """The layout that a prompt asks for.

    Args:
        prompt: Such as "a <mine> bear left of a cat on a red background"; things are said with an article, a number up to four or a
            new word. Relations are left of, right of, above and below, as ``photopic.knowledge.relation_layout`` knows them.
        own_prompts: Whether each region reads its own thing alone on the same ground, in place of the whole prompt.

    Raises:
        DataError: If it names no thing, or its relations cannot all hold.

    Example:
        >>> [(each.words, each.box[0] < 0.1) for each in layout_of_prompt("a cat right of a <mine> bear").regions]
        [('cat', False), ('<mine> bear', True)]
    """
    frame = match[0] if (match := _FRAME.match(prompt.strip())) else ""
    body = prompt.strip().removesuffix(".")[len(frame) :]
    ground = match[0] if (match := _GROUND.search(body)) else ""
    phrases = list(_phrases(body[: len(body) - len(ground)]))
    things = [each for each in phrases if each.is_thing] or phrases  # "cat and dog" has no article at all
    if not things:
        raise DataError(f"prompt {prompt!r}: expected things such as 'a bear left of a cat', found none; give a layout")
    around = "".join(f", {each.said}" for each in phrases if each not in things) + ground
    objects = [ConceptObject(f"{each.words} {n}.{m}") for n, each in enumerate(things) for m in range(each.count)]
    of = [
        [item.name for item in objects if item.name.startswith(f"{each.words} {n}.")] for n, each in enumerate(things)
    ]
    relations = tuple(
        Relation(first, each.relation, second)
        for number, each in enumerate(things[1:], 1)
        if each.relation
        for first in of[number - 1]
        for second in of[number]
    )
    try:
        boxes = _centred(boxes_by_relations(BagOfConcepts(objects=tuple(objects), relations=relations), {}))
    except DataError as error:
        said = re.sub(
            r" \d+\.\d+\b", "", str(error).removeprefix("graph: ")
        )  # without the numbers that tell things apart
        raise DataError(f"prompt {prompt!r}: {said}") from None
    regions = []
    for words in dict.fromkeys(each.words for each in things):
        named = [name for each, names in zip(things, of, strict=True) if each.words == words for name in names]
        said = next(each.said for each in things if each.words == words)
        own = f"{frame}{said}{around}" if own_prompts else None
        regions.append(replace(region_of(words, [boxes[name] for name in named]), prompt=own))
    return Layout(tuple(regions))


def _phrases(body: str) -> Iterator[_Thing]:
    """What stands between joints; a relation belongs to the phrase after it."""
    relation: str | None = None
    for number, part in enumerate(_JOINT.split(body)):
        if number % 2:
            relation = SYNONYMS.get(part.casefold(), relation)
            continue
        said = _EXTRA.sub("", f" {part} ").strip()
        first, _, rest = said.partition(" ")
        count = _COUNTS.get(first.casefold())
        if said:
            yield _Thing(said, rest if count and rest else said, count or 1, relation, bool(count) or "<" in said)
            relation = None


def _centred(boxes: dict[str, Box]) -> dict[str, Box]:
    """Boxes moved together, so that as much ground is left on one side as on the other."""
    across, down = (
        (1 - min(b[axis] for b in boxes.values()) - max(b[axis + 2] for b in boxes.values())) / 2 for axis in (0, 1)
    )
    return {name: (x + across, y + down, right + across, low + down) for name, (x, y, right, low) in boxes.items()}
