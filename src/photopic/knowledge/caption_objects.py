"""The objects of the text of a bag of concepts, ``<owl 1> (Living; foreground; description; Color information: ...)``; recovery."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from photopic.knowledge.bag_of_concepts import ConceptObject, Place, folded
from photopic.knowledge.caption_damage import Damage
from photopic.knowledge.caption_marks import outside_quotations, shown
from photopic.knowledge.caption_sections import Span

LIVING = {
    "living": True,
    "animate": True,
    "inanimate": False,
    "non-living": False,
    "nonliving": False,
    "not living": False,
}
PLACES: dict[str, Place] = {
    "foreground": "foreground",
    "background": "background",
    "foreground/background": "both",
    "background/foreground": "both",
    "foreground or background": "both",
    "foreground and background": "both",
    "both": "both",
}
COLOUR = re.compile(r"\s*colou?rs?(?: information)?\s*[:：]\s*", re.IGNORECASE)
_LIFE = r"(?:living|inanimate|animate|non-living)\b"
_TOKEN = re.compile(
    rf"(?P<full><(?P<name>[^<>\n]+)>\s{{0,9}}(?P<opens>\()(?P<sure>\s{{0,9}}{_LIFE})?)"
    r"|(?P<half>(?:^|(?<=%%))[ \t*\d.-]{0,9}(?!<[^<>\n]+>)<?(?P<named>[^\s<>()\[\];][^<>()\[\];\n]{0,80})>?"
    rf"\s{{0,9}}(?P<open>\()(?=\s{{0,9}}{_LIFE}))"
    r"|[();]",
    re.IGNORECASE | re.MULTILINE,
)
_STOP_OR_BRACKET = re.compile(r"[()]|\.(?=\s|\Z)")


@dataclass
class _Draft:
    """An object as it is read: where it begins, where its fields are parted."""

    name: str
    start: int
    opened: int  # behind its bracket
    cuts: list[int] = field(default_factory=list)
    end: int = -1  # of its last field, before the closing bracket


def objects(text: str, spans: Sequence[Span], damage: Damage) -> tuple[list[ConceptObject], list[Span]]:
    """The objects of a section, and the places in it that are none.

    Args:
        text: Hidden.
        spans: Where the section stands.
        damage: Takes the repairs.
    """
    found: list[tuple[_Draft, ConceptObject]] = []
    others: list[Span] = []
    for start, end in spans:
        here = start
        for draft in _drafts(text, start, end, damage):
            others.append((here, draft.start))
            here = draft.end + 1
            found.append((draft, _object(text, draft, damage)))
        others.append((here, end))
    return _apart(found, damage), [(start, end) for start, end in others if text[start:end].strip(" \t\n)")]


def sentences(text: str, start: int, end: int) -> tuple[str, ...]:
    """The sentences of a piece of a hidden text, without their full stops; a stop in a bracket, quotation or number parts none."""
    for ignored in ("", "()"):  # a second time without brackets, where one of them lacks its other half
        depth, here, found = 0, start, []
        for match in outside_quotations(_STOP_OR_BRACKET, text, start, end):
            if match[0] == ".":
                if depth == 0:
                    found.append(text[here : match.start()])
                    here = match.end()
            elif match[0] not in ignored:
                depth += 1 if match[0] == "(" else -1
        if depth == 0:
            break
    return tuple(filter(None, map(shown, (*found, text[here:end]))))


def _drafts(text: str, start: int, end: int, damage: Damage) -> Iterator[_Draft]:
    """The objects of one place, with the ends of their brackets; the last is left out where the text ends within it."""
    draft: _Draft | None = None
    depth = 0  # of round brackets
    for match in outside_quotations(_TOKEN, text, start, end, open_end=end == len(text)):
        name = match["name"] or match["named"]
        if name and (depth == 0 or match["sure"] or match["half"] or _begins_line(text, match.start())):
            if draft and draft.end < 0:
                damage.note("unclosed bracket", draft.start, match.start(), "closed before the next object")
                draft.end = match.start()
            if draft:
                yield draft
            if match["half"]:
                damage.note("half mark", match.start(), match.end(), "read as the name of an object")
            opened = max(match.end("opens"), match.end("open"))
            draft, depth = _Draft(shown(name), match.start(), opened), 1
        elif match[0] == ")" and draft:
            depth = max(0, depth - 1)
            if depth == 0:
                if draft.end >= 0 and "\n" not in text[draft.end : match.start()]:
                    damage.note(
                        "unclosed bracket",
                        draft.end,
                        match.start() + 1,
                        "a bracket closed too early, its object goes on",
                    )
                if draft.end < 0 or "\n" not in text[draft.end : match.start()]:
                    draft.end = match.start()
        elif match[0] == ";" and draft and depth <= 1:
            draft.cuts.append(match.start())
        elif match[0] != ";" and draft and match[0] != ")":
            depth += 1  # a bracket, with a name before it or not
    if draft and draft.end < 0:
        if end == len(text):
            damage.note("truncated", draft.start, end, "the text ends within an object, which is left out")
            return
        damage.note("unclosed bracket", draft.start, end, "closed before the next section")
        draft.end = end
    if draft:
        yield draft


def _object(text: str, draft: _Draft, damage: Damage) -> ConceptObject:
    cuts = [cut for cut in draft.cuts if cut < draft.end]
    if (
        len(cuts) < 3
        and len(bare := [found.start() for found in re.finditer(";", text[draft.opened : draft.end])]) == 3
    ):
        cuts = [draft.opened + place for place in bare]  # what looked like brackets or quotations was none
        damage.note(
            "half mark", draft.start, draft.end, "a bracket or quotation without its other half is taken as it is"
        )
    starts, ends = [draft.opened, *(cut + 1 for cut in cuts)], [*cuts, draft.end]
    pieces = list(zip(starts, ends, strict=True))
    living: bool | None = None
    place: Place | None = None
    colour: tuple[str, ...] = ()
    is_whole = len(pieces) == 4
    if (first := word(text, pieces[0])) in LIVING or is_whole:
        living = LIVING.get(first)
        _told(first, living, pieces.pop(0), damage, "says nothing of life")
    if pieces and ((depth := word(text, pieces[0])) in PLACES or is_whole):
        place = PLACES.get(depth)
        _told(depth, place, pieces.pop(0), damage, "says nothing of depth")
    if pieces and ((prefix := COLOUR.match(text, *pieces[-1])) or is_whole):
        start, end = pieces.pop()
        colour = sentences(text, prefix.end() if prefix else start, end)
    if len(cuts) < 3:
        damage.note("missing field", draft.start, draft.end, f"expected 4 fields, found {len(cuts) + 1}")
    elif len(cuts) > 3:
        damage.note(
            "extra field",
            draft.start,
            draft.end,
            f"expected 4 fields, found {len(cuts) + 1}; read into the description",
        )
    description = tuple(each for start, end in pieces for each in sentences(text, start, end))
    return ConceptObject(draft.name, living, place, description, colour)


def _told(said: str, meaning: object, piece: Span, damage: Damage, nothing: str) -> None:
    if said and meaning is None:
        damage.note("missing field", *piece, f"a word that {nothing} is left out")


def word(text: str, piece: Span) -> str:
    """A field of one word, as the words of life and depth are compared."""
    return re.sub(r"\s*/\s*", "/", folded(shown(text[slice(*piece)])).rstrip("."))


def _begins_line(text: str, place: int) -> bool:
    return not text[max(0, place - 20) : place].rpartition("\n")[2].strip() and "\n" in text[max(0, place - 20) : place]


def _apart(found: Sequence[tuple[_Draft, ConceptObject]], damage: Damage) -> list[ConceptObject]:
    """The same with names that differ: a second ``owl 1`` becomes the owl of the next free number."""
    taken = {folded(item.name) for _, item in found}
    seen: set[str] = set()
    last: dict[str, int] = {}
    apart = []
    for draft, item in found:
        if folded(item.name) in seen:
            number = last.get(folded(item.concept), 1) + 1
            while folded(f"{item.concept} {number}") in taken:
                number += 1
            last[folded(item.concept)] = number
            new = f"{item.concept} {number}"
            taken.add(folded(new))
            damage.note("duplicate name", draft.start, draft.opened, f"a second {item.name!r} is called {new!r}")
            item = replace(item, name=new)
        seen.add(folded(item.name))
        apart.append(item)
    return apart
