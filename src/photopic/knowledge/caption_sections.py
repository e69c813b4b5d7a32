"""The sections of the text of a bag of concepts: found by their headings, whole or half, in any wording or language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from photopic.knowledge.bag_of_concepts import folded
from photopic.knowledge.caption_damage import Damage

Span = tuple[int, int]
TITLES = {
    "1": ("overall description",),
    "1.1": ("style",),
    "1.2": ("theme",),
    "1.3": ("global description of background", "global description of the background", "background"),
    "1.4": ("global description of foreground", "global description of the foreground", "foreground"),
    "2": ("list of objects", "object list", "objects"),
    "3": ("relationships", "relationship", "relations"),
    "4": ("positions of objects", "objects' positions", "object positions", "positions"),
}
_KEYS = {title: key for key, titles in TITLES.items() for title in titles}
_KNOWN = "|".join(sorted(_KEYS, key=len, reverse=True))
# every repetition has a bound or cannot begin twice at one place, so that reading takes linear time
_PART = r"\*{0,2}(?<!\w)Part[ \t]{0,3}\d(?:\.\d)?[ \t]{0,3}[:.：–-]?[ \t]{0,3}" + rf"(?:{_KNOWN})\b\*{{0,2}}[:：]?"
_HEAD = re.compile(
    rf"(?:(?:%%|&&)[ \t]{{0,9}})?{_PART}[ \t]{{0,9}}(?P<closed>%%|&&)"  # known words with a mark behind
    r"|%%(?:[^%&\n<>().]|\.(?=\d)){1,80}%%|&&(?:[^%&\n<>().]|\.(?=\d)){1,80}&&"  # any words between two marks
    rf"|(?:(?:%%|&&)[ \t]{{0,9}})?{_PART}"  # known words with a mark before, or alone on a line
    r"|(?:%%|&&)[ \t]{0,9}\w{1,20}[ \t]{0,3}\d(?:\.\d)?\b[^%&\n]{0,120}$"  # half, up to the end of its line
    r"|^[^%&\n<>()]{1,160}(?:%%|&&)"  # half, from the beginning of its line
    rf"|^#{{1,6}}[ \t]{{0,9}}(?:Part[ \t]{{0,3}}\d[^\n]{{0,120}}|(?:{_KNOWN})[ \t]{{0,9}}:?[ \t]{{0,9}}$)",  # of Markdown
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"\d(?:\.\d)?")


@dataclass(frozen=True)
class Heading:
    """One heading: which section begins, and where the heading itself stands."""

    key: str
    start: int
    end: int


def sections(text: str, damage: Damage) -> dict[str, list[Span]]:
    """Where the words of each section stand, by its number such as ``1.3``; more than one place where a heading comes twice.

    Args:
        text: Hidden (see ``caption_marks``).
        damage: Takes headings that are not as the canonical form has them, and words before the first.
    """
    found: dict[str, list[Span]] = {}
    heads = list(_headings(text, damage))
    if heads and text[: heads[0].start].strip():
        damage.note("unread", 0, heads[0].start, "words before the first heading are left out")
    ends = [*(head.start for head in heads[1:]), len(text)][: len(heads)]
    for head, end in zip(heads, ends, strict=True):
        if head.key in found:
            damage.note("repeated section", head.start, head.end, "a heading comes again, its words are added")
        found.setdefault(head.key, []).append((head.end, end))
    return found


def _headings(text: str, damage: Damage) -> Iterator[Heading]:
    parts = subs = 0  # how many headings of each level came
    for match in _HEAD.finditer(text):
        raw = match[0]
        if (
            raw[:1] not in "%&#"
            and not match["closed"]
            and not raw.endswith(("%%", "&&"))
            and not _fills_line(text, match)
        ):
            continue  # a sentence that speaks of "Part 1: Style"
        title = folded(raw.strip("%&#* \t"))
        words = re.sub(r"^part ?\d(\.\d)?\W*", "", title).rstrip(":： ")
        number = _NUMBER.search(title)
        is_sub = "&&" in raw or "." in (number[0] if number else "")
        key = _KEYS.get(words) or (number and _plain(number[0])) or (f"1.{subs + 1}" if is_sub else f"{parts + 1}")
        if key not in TITLES:
            damage.note("heading", *match.span(), "no section has this heading, it is left out")
            continue
        parts, subs = (parts, subs + 1) if "." in key else (int(key), subs)
        marks = "&&" if "." in key else "%%"
        is_whole = raw.startswith(marks) and raw.endswith(marks)
        if not is_whole or words != TITLES[key][0]:
            damage.note("heading", *match.span(), f"read as the heading of part {key}")
        yield Heading(key, *match.span())


def _fills_line(text: str, match: re.Match[str]) -> bool:
    start, end = match.span()
    line_start, line_end = text.rfind("\n", max(0, start - 20), start) + 1, text.find("\n", end, end + 20)
    before = text[max(line_start, start - 20) : start]
    after = text[end : line_end if line_end >= 0 else end + 20]
    return not before.strip() and not after.strip()


def _plain(number: str) -> str:
    return ".".join(str(int(digit)) for digit in number.split("."))  # digits of any script
