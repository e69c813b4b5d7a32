"""The grammar of the text of a bag of concepts, read by lark without any repair: what it takes needs none."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from photopic.core.errors import DataError, printable
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject, Relation
from photopic.knowledge.caption_marks import hidden, shown
from photopic.knowledge.caption_objects import COLOUR, LIVING, PLACES, sentences, word

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

# of a hidden text, in which nothing behind a backslash is a mark; blanks belong to the terminal before them
GRAMMAR = r"""
start: H1 style theme background foreground H2 object* H3 relation* (H4 position*)?
style: S1 TEXT?
theme: S2 TEXT?
background: S3 TEXT?
foreground: S4 TEXT?
object: NAME OPEN field SEP field SEP field SEP field CLOSE
field: (PLAIN | NAME | QUOTATION | round)*
round: OPEN (PLAIN | NAME | QUOTATION | SEP | round)* CLOSE
relation: NAME+ PREDICATE NAME+ STOP
position: (NAME | LABEL) BOX

H1: /\s*%%\s*Part\s*1\s*:\s*Overall description\s*%%\s*/i
H2: /%%\s*Part\s*2\s*:\s*List of objects\s*%%\s*/i
H3: /%%\s*Part\s*3\s*:\s*Relationships\s*%%\s*/i
H4: /%%[^%\n]+%%\s*/
S1: /&&\s*Part\s*1\.1\s*:\s*Style\s*&&\s*/i
S2: /&&\s*Part\s*1\.2\s*:\s*Theme\s*&&\s*/i
S3: /&&\s*Part\s*1\.3\s*:\s*Global description of background\s*&&\s*/i
S4: /&&\s*Part\s*1\.4\s*:\s*Global description of foreground\s*&&\s*/i
TEXT: /(?:[^%&]|%(?!%)|&(?!&))+/
NAME: /<[^<>\n]+>\s*/
OPEN: /\(/
CLOSE: /\)\s*/
SEP: /;/
PLAIN: /[^()<>;"“]+/
QUOTATION: /"[^"\n]*"|“[^”\n]*”/
PREDICATE: /\[[^\[\]]+\]\s*/
STOP: /\.\s*/
LABEL: /[^\s<>{},][^<>{},]*/
BOX: /\{\s*width\s*:\s*\d+px\s*;\s*height\s*:\s*\d+px\s*;\s*x\s*:\s*-?\d+px\s*;\s*y\s*:\s*-?\d+px\s*\}\s*,?\s*/i
"""
WORDS = {  # what a message calls a terminal
    "NAME": "<name>", "PREDICATE": "[predicate]", "OPEN": "(", "CLOSE": ")", "SEP": ";", "STOP": ".", "$END": "the end",
    "TEXT": "sentences", "PLAIN": "words", "QUOTATION": "a quotation", "LABEL": "a name",
    "BOX": "{width: 1px; height: 1px; x: 0px; y: 0px}", "H1": "%%Part1: Overall description%%", "H2": "%%Part2: List of objects%%",
    "H3": "%%Part3: Relationships%%", "H4": "%%Part4: Positions of objects%%", "S1": "&&Part1.1: Style&&",
    "S2": "&&Part1.2: Theme&&", "S3": "&&Part1.3: Global description of background&&",
    "S4": "&&Part1.4: Global description of foreground&&",
}  # fmt: skip


def read_strictly(text: str) -> BagOfConcepts:
    """Read a bag whose text is as the grammar has it.

    Args:
        text: In the canonical form, or in the published one where nothing is damaged; blanks and line ends are free.

    Raises:
        DataError: If lark is not installed, or at the first place that is not as the grammar has it; says what was expected.

    Example:
        >>> from photopic.knowledge.caption_text import write
        >>> read_strictly(write(BagOfConcepts(objects=(ConceptObject("owl 1", True),)))).objects[0].living
        True
    """
    parser = _parser()
    from lark.exceptions import UnexpectedInput

    marked = hidden(text)
    try:
        tree = parser.parse(marked)
    except UnexpectedInput as error:
        found = text[error.pos_in_stream :][:40] if error.pos_in_stream is not None else ""
        names: Any = (
            getattr(error, "accepts", None) or getattr(error, "allowed", None) or getattr(error, "expected", ())
        )
        expected = " or ".join(sorted(WORDS.get(name, name) for name in names))
        raise DataError(
            f"line {error.line}, column {error.column}: expected {expected}, found "
            f"{printable(repr(found)) if found.strip() else 'the end'}; read it without strict to repair it"
        ) from None
    return _bag(marked, tree)


@cache
def _parser() -> Lark:
    try:
        from lark import Lark
    except ModuleNotFoundError:
        raise DataError("strict: needs lark, which is not installed; pip install 'photopic[knowledge]'") from None
    return Lark(GRAMMAR, parser="lalr")


def _bag(text: str, tree: Tree[Token]) -> BagOfConcepts:
    parts: dict[str, list[Any]] = {}
    for child in tree.children:
        if not isinstance(child, str):  # a token is a word
            parts.setdefault(child.data, []).append(child.children)
    boxes = dict(_position(*tokens) for tokens in parts.get("position", ()))
    objects = [_object(text, tokens, boxes) for tokens in parts.get("object", ())]
    if boxes:
        raise DataError(f"the position of {next(iter(boxes))!r} has no object in the list")
    one, more = (
        {name: _overall(text, parts[name][0]) for name in names}
        for names in (("style", "theme"), ("background", "foreground"))
    )
    return BagOfConcepts(
        **{name: ". ".join(texts) for name, texts in one.items()},  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
        objects=tuple(objects),
        relations=tuple(each for tokens in parts.get("relation", ()) for each in _relations(tokens)),
    )


def _overall(text: str, tokens: list[Any]) -> tuple[str, ...]:
    return sentences(text, tokens[1].start_pos, tokens[1].end_pos) if len(tokens) > 1 else ()


def _object(text: str, tokens: list[Any], boxes: dict[str, Box]) -> ConceptObject:
    name = _inside(tokens[0])
    marks: list[Any] = [each for each in tokens[1:] if isinstance(each, str)]  # tokens ( ; ; ; )
    spans = [(first.start_pos + 1, second.start_pos) for first, second in pairwise(marks)]
    living, place = (word(text, span) for span in spans[:2])
    if living not in (*LIVING, "") or place not in (*PLACES, ""):
        raise DataError(
            f"line {marks[0].line}: {name!r}: expected Living or Inanimate and foreground, background or both, found "
            f"{living!r} and {place!r}; read it without strict to repair it"
        )
    start, end = spans[3]
    colour = COLOUR.match(text, start, end)
    return ConceptObject(
        name, LIVING.get(living), PLACES.get(place), sentences(text, *spans[2]),
        sentences(text, colour.end() if colour else start, end), boxes.pop(name, None),
    )  # fmt: skip


def _relations(tokens: list[Token]) -> list[Relation]:
    at = next(place for place, token in enumerate(tokens) if token.type == "PREDICATE")
    subjects, ends = ([_inside(token) for token in side] for side in (tokens[:at], tokens[at + 1 : -1]))
    return [Relation(first, _inside(tokens[at]), second) for first in subjects for second in ends]


def _position(label: Token, numbers: Token) -> tuple[str, Box]:
    width, height, left, top = (int(number) for number in re.findall(r"-?\d+", numbers))
    return _inside(label) if label.type == "NAME" else shown(label), (left, top, left + width, top + height)


def _inside(token: Token) -> str:
    return shown(token.rstrip()[1:-1])
