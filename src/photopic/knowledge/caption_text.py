"""The text of a bag of concepts: written in one canonical form, read from that form and from what language models make of it.

    %%Part1: Overall description%%
    &&Part1.1: Style&& ...
    &&Part1.2: Theme&& ...
    &&Part1.3: Global description of background&& ...
    &&Part1.4: Global description of foreground&& ...
    %%Part2: List of objects%%
    <owl 1> (Living; foreground; description; Color information: ...)
    %%Part3: Relationships%%
    <owl 1> [sits on] <branch 1>.
    %%Part4: Positions of objects%%
    <owl 1> {width: 120px; height: 80px; x: 10px; y: 200px}

The marks are those of the paper (arXiv:2407.03314); the fourth part stands only where boxes are known. A backslash before a mark
makes it a plain letter. ``parse(write(bag)).bag == bag`` for every bag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from photopic.core.errors import DataError
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject
from photopic.knowledge.bag_record import from_json
from photopic.knowledge.caption_marks import phrase, sentence
from photopic.knowledge.caption_repairs import Parsed, recover

LIVING = {True: "Living", False: "Inanimate", None: ""}
PLACES = {"foreground": "foreground", "background": "background", "both": "foreground/background", None: ""}
COLOUR = "Color information:"
_FENCED = re.compile(r"\A```\w{0,9}\s*(.*?)\s*```\Z", re.DOTALL)


def write(bag: BagOfConcepts, *, positions: bool = True) -> str:
    """The canonical text, one line each for a sub-section, an object, a relation and a position.

    Args:
        bag: What to write.
        positions: Whether boxes are written, as the fourth part; there is none where no object has a box.

    Example:
        >>> print(write(BagOfConcepts("photo", "night", objects=(ConceptObject("owl 1", True),))))
        %%Part1: Overall description%%
        &&Part1.1: Style&& photo.
        &&Part1.2: Theme&& night.
        &&Part1.3: Global description of background&&
        &&Part1.4: Global description of foreground&&
        %%Part2: List of objects%%
        <owl 1> (Living; ; ; )
        %%Part3: Relationships%%
        <BLANKLINE>
    """
    lines = ["%%Part1: Overall description%%"]
    overall = {"Style": (bag.style,), "Theme": (bag.theme,), "background": bag.background, "foreground": bag.foreground}
    for number, (name, texts) in enumerate(overall.items(), start=1):
        title = f"Global description of {name}" if number > 2 else name
        lines.append(f"&&Part1.{number}: {title}&& {_sentences(tuple(filter(None, texts)))}".rstrip())
    lines.append("%%Part2: List of objects%%")
    lines += map(_object_line, bag.objects)
    lines.append("%%Part3: Relationships%%")
    lines += (f"<{phrase(each.subject)}> [{phrase(each.predicate)}] <{phrase(each.object)}>." for each in bag.relations)
    if positions and any(item.box for item in bag.objects):
        lines.append("%%Part4: Positions of objects%%")
        lines += _position_lines(bag)
    return "\n".join(lines) + "\n"


def parse(text: str, *, strict: bool = False) -> Parsed:
    """Read a bag from its text, or from its JSON.

    Args:
        text: In canonical form, in the published one with or without positions, or damaged.
        strict: Whether anything but the grammar is refused; else it is repaired, and each repair is told with its place.

    Raises:
        DataError: If nothing of it is a bag of concepts; with ``strict`` if anything needs repair,
            or if lark is not installed.

    Example:
        >>> parse("%%Part2: List of objects%%\\n<owl 1> (Living; both; it sleeps)").repairs[-1].kind
        'missing section'
    """
    if bare := _as_json(text):
        return Parsed(bare)
    if strict:
        from photopic.knowledge.caption_grammar import read_strictly

        return Parsed(read_strictly(text))
    return recover(text)


def _as_json(text: str) -> BagOfConcepts | None:
    """The bag of a text that is JSON, alone or fenced as in Markdown; None for any other text."""
    bare = _FENCED.sub(r"\1", text.strip())
    if not bare.startswith("{"):
        return None
    try:
        stated = json.loads(bare)
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected JSON, as the text begins like it, found something else ({error})") from None
    return from_json(stated).bag


def _object_line(item: ConceptObject) -> str:
    colour = f"{COLOUR} {_sentences(item.colour)}" if item.colour else ""
    fields = (LIVING[item.living], PLACES[item.place], _sentences(item.description), colour)
    return f"<{phrase(item.name)}> ({'; '.join(fields)})"


def _position_lines(bag: BagOfConcepts) -> Iterator[str]:
    for item in bag.objects:
        if item.box is not None:
            left, top, right, bottom = item.box
            yield f"<{phrase(item.name)}> {{width: {right - left}px; height: {bottom - top}px; x: {left}px; y: {top}px}}"


def _sentences(texts: tuple[str, ...]) -> str:
    return " ".join(f"{sentence(text)}." for text in texts)
