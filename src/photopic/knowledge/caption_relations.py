"""The relations and positions of the text of a bag of concepts: ``<owl 1> [sits on] <branch 1>.``, and recovery."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from photopic.core.errors import DataError
from photopic.knowledge.bag_of_concepts import Box, Names, Relation, folded
from photopic.knowledge.caption_damage import Damage
from photopic.knowledge.caption_marks import shown
from photopic.knowledge.caption_sections import Span

MAX_RELATIONS = 10_000  # of one picture
_MARK = re.compile(r"[<>\[\]\n;,]|\.(?=\s|<|\Z)")
_JOINTS = {"", "and", "or", "&", "the", "a", "an", "-", "*"}  # words between names that say nothing more
_POSITION = re.compile(r"(?P<name>[^{}()\n]{0,200})[({](?P<numbers>[^{}()]{0,200})[)}]")
_NUMBER = re.compile(
    r"\b(?P<key>width|height|x|y)\b[\"']?\s{0,3}[:=]\s{0,3}(?P<number>-?\d{1,9}(?:\.\d{1,9})?)\s{0,3}(?:px)?\s{0,3}(?=[;,]|\Z)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Piece:
    """A name, a predicate, a comma or the end of a relation, with its place."""

    kind: Literal["name", "predicate", "comma", "line", "stop"]
    start: int
    end: int
    words: str = ""


@dataclass
class _Pending:
    """A relation as it is read."""

    subjects: list[_Piece] = field(default_factory=list)
    predicates: list[_Piece] = field(default_factory=list)
    objects: list[_Piece] = field(default_factory=list)

    @property
    def pieces(self) -> list[_Piece]:
        return [*self.subjects, *self.predicates, *self.objects]


def relations(text: str, spans: Sequence[Span], names: Names, damage: Damage) -> list[Relation]:
    """The relations of a section.

    Args:
        text: Hidden.
        spans: Where the section stands.
        names: Of the objects that ends may stand for.
        damage: Takes the repairs.

    Raises:
        DataError: If they are more than ``MAX_RELATIONS``.
    """
    found: list[Relation] = []
    for start, end in spans:
        for pending in _grouped(list(_pieces(text, start, end, damage)), damage):
            found += _resolved(pending, names, damage)
            if len(found) > MAX_RELATIONS:  # plurals on both sides multiply
                raise DataError(
                    f"expected at most {MAX_RELATIONS:,} relations, found more; name their objects one by one"
                )
    return found


def boxes(text: str, spans: Sequence[Span], names: Names, damage: Damage) -> dict[str, Box]:
    """The positions of a section, as boxes by name."""
    found: dict[str, Box] = {}
    for start, end in spans:
        here = start
        for match in _POSITION.finditer(text, start, end):
            _unread(text, here, match.start(), damage)
            here = match.end()
            meant = _placed(match["name"], names)
            numbers = {each["key"].lower(): float(each["number"]) for each in _NUMBER.finditer(match["numbers"])}
            box = _box(numbers)
            if len(meant) != 1 or box is None or meant[0] in found:
                damage.note(
                    "position",
                    match.start(),
                    match.end(),
                    "a position without a listed object or an area is left out",
                )
            else:
                if any(number % 1 for number in numbers.values()):
                    damage.note("position", match.start(), match.end(), "rounded to whole pixels")
                if re.search(r"\w", _NUMBER.sub("", match["numbers"])):
                    damage.note("position", match.start(), match.end(), "words among the numbers are left out")
                found[meant[0]] = box
        _unread(text, here, end, damage)
    return found


def _placed(words: str, names: Names) -> tuple[str, ...]:
    """The object that a position is of; the first of a list may stand behind a title of its own."""
    for part in (words, words.rpartition('"')[2], words.rpartition(":")[2]):
        name = shown(part.strip(" \t,;*-.:\"'").removeprefix("<").removesuffix(">"))
        if meant := names.resolve(name):
            return meant
    return ()


def _box(numbers: dict[str, float]) -> Box | None:
    if not {"x", "y", "width", "height"} <= numbers.keys():
        return None
    left, top = numbers["x"], numbers["y"]
    box = (round(left), round(top), round(left + numbers["width"]), round(top + numbers["height"]))
    return box if box[0] < box[2] and box[1] < box[3] else None


def _pieces(text: str, start: int, end: int, damage: Damage) -> Iterator[_Piece]:
    here, opened = start, -1  # behind the last piece; where an open bracket stands
    for match in _MARK.finditer(text, start, end):
        mark, place = match[0], match.start()
        if opened >= 0 and mark in "<[>]\n":
            is_closed = mark == {"<": ">", "[": "]"}[text[opened]]
            here = place + (mark in ">]")
            yield from _bracketed(text, opened, here, is_closed, damage)
            opened = -1
            if mark in ">]":
                continue
        if opened >= 0:
            continue  # a comma or stop inside the brackets
        if mark in ">]":  # the first half is missing: the words since the last piece
            damage.note("half mark", here, place + 1, "a bracket is put before these words")
            if words := shown(text[here:place]):
                yield _Piece("name" if mark == ">" else "predicate", here, place + 1, words)
        else:
            _unread(text, here, place, damage)
        if mark in "<[":
            opened = place
        elif mark not in ">]":
            yield _Piece("line" if mark == "\n" else "comma" if mark == "," else "stop", place, place + 1)
        here = place + 1
    if opened >= 0 and end == len(text):
        damage.note("truncated", opened, end, "the text ends within a relation, which is left out")
    elif opened >= 0:
        yield from _bracketed(text, opened, end, False, damage)
    else:
        _unread(text, here, end, damage)


def _bracketed(text: str, start: int, end: int, is_closed: bool, damage: Damage) -> Iterator[_Piece]:
    if not is_closed:
        damage.note("half mark", start, end, "a bracket is put behind these words")
    if words := shown(text[start + 1 : end].rstrip("<[>]\n")):
        yield _Piece("name" if text[start] == "<" else "predicate", start, end, words)
    elif is_closed:
        damage.note("half mark", start, end, "brackets without words are left out")


def _grouped(pieces: Sequence[_Piece], damage: Damage) -> Iterator[_Pending]:
    """One relation after the other; a name after a complete one begins the next if a predicate follows it."""
    ahead = _predicate_ahead(pieces)
    pending = _Pending()
    for place, piece in enumerate(pieces):
        if piece.kind == "name":
            if pending.objects and ahead[place]:
                yield pending
                pending = _Pending()
            (pending.objects if pending.predicates else pending.subjects).append(piece)
        elif piece.kind == "predicate":
            if pending.objects:  # A on B beside C: B beside C
                damage.note("chained relation", piece.start, piece.end, "begins at the end of the one before")
                yield pending
                pending = _Pending([pending.objects[-1]])
            pending.predicates.append(piece)
        elif piece.kind == "stop" or (piece.kind == "line" and _ends_line(pending, pieces, place, ahead)):
            yield from _complete(pending, damage)
            pending = _Pending()
    yield from _complete(pending, damage)


def _predicate_ahead(pieces: Sequence[_Piece]) -> list[bool]:
    """For each piece whether a predicate comes behind it before its sentence or line ends."""
    ahead, answer = [False] * len(pieces), False
    for place in range(len(pieces) - 1, -1, -1):
        ahead[place] = answer
        if pieces[place].kind in ("predicate", "stop", "line"):
            answer = pieces[place].kind == "predicate"
    return ahead


def _ends_line(pending: _Pending, pieces: Sequence[_Piece], place: int, ahead: Sequence[bool]) -> bool:
    """Whether a relation ends with its line: if it is complete, or the next line is a relation of its own."""
    if pending.objects or not pending.pieces or place + 1 == len(pieces):
        return True
    following = pieces[place + 1]
    return following.kind == "name" and (ahead[place + 1] or not pending.predicates)


def _complete(pending: _Pending, damage: Damage) -> Iterator[_Pending]:
    if pending.subjects and pending.predicates and pending.objects:
        yield pending
    elif pending.pieces:
        start, end = pending.pieces[0].start, pending.pieces[-1].end
        damage.note("incomplete relation", start, end, "without subject, predicate or object; left out")


def _resolved(pending: _Pending, names: Names, damage: Damage) -> list[Relation]:
    predicate = " ".join(piece.words for piece in pending.predicates)
    subjects = [name for piece in pending.subjects for name in _end(piece, names, damage)]
    ends = [name for piece in pending.objects for name in _end(piece, names, damage)]
    is_one = len(subjects) == len(ends) == 1
    pairs = ((first, second) for first in subjects for second in ends if is_one or first != second)
    return [Relation(first, predicate, second) for first, second in islice(pairs, MAX_RELATIONS + 1)]


def _end(piece: _Piece, names: Names, damage: Damage) -> tuple[str, ...]:
    meant = names.resolve(piece.words)
    if len(meant) > 1:
        damage.note("plural", piece.start, piece.end, f"stands for {_listed(meant)}")
    elif meant and meant[0] != piece.words:
        damage.note("other spelling", piece.start, piece.end, f"read as {meant[0]}")
    return meant or (piece.words,)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _unread(text: str, start: int, end: int, damage: Damage) -> None:
    words = folded(shown(text[start:end])).strip(" \t0123456789.)*-•,;\"'")
    if words not in _JOINTS:
        damage.note("unread", start, end, "words outside any part are left out")
