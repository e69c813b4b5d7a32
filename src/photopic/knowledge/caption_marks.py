"""The marks of the text of a bag of concepts, and how a text that holds them is written: a backslash before each.

``hidden`` gives what stands behind a backslash another letter, so that whoever looks for marks does not find it;
places stay the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from photopic.knowledge.bag_of_concepts import in_order

MARKS = '\\;.()<>[]%&"“”{},*'
# one noncharacter a mark, and one for the backslash itself; no text of a bag holds them
_STAND_IN = {mark: chr(0xFDD0 + index) for index, mark in enumerate(MARKS)}
_BACKSLASH = "\ufdef"
_ESCAPED = re.compile(r"\\([" + re.escape(MARKS) + "])")
_SHOWN = str.maketrans({stand_in: mark for mark, stand_in in _STAND_IN.items()} | {_BACKSLASH: None})
FOREIGN = re.compile("[\ufdd0-\ufdef]")
# what is written bare: a noun in angle brackets that no bracket follows; else what needs a backslash
_BARE_NOUN = r"(?P<bare><[\w' -]{1,80}>(?! ?\())"
_IN_SENTENCE = re.compile(_BARE_NOUN + r"|[\\;<>\[\]{}]|\.(?=\s|$)|(?:%(?=%)|(?<=%)%|&(?=&)|(?<=&)&)")
_IN_NAME = re.compile(r"[\\;<>\[\]{}%&,*()\"“”]")
_BRACKETS, _QUOTES = re.compile("[()]"), re.compile('["“”]')


def sentence(text: str) -> str:
    """A sentence with a backslash before what would be read as a mark.

    Example:
        >>> print(sentence("a (small) owl; v. old"))
        a (small) owl\\; v\\. old
    """
    text = _IN_SENTENCE.sub(lambda found: found[0] if found["bare"] else "\\" + found[0], text)
    if any(not closed for _, _, closed in quotations(text)):
        text = _QUOTES.sub(r"\\\g<0>", text)
    if not _is_balanced(text):
        text = _BRACKETS.sub(r"\\\g<0>", text)
    return text


def phrase(text: str) -> str:
    """A name or a predicate likewise, as it stands in brackets of its own.

    Example:
        >>> print(phrase("a <b>"))
        a \\<b\\>
    """
    return _IN_NAME.sub(r"\\\g<0>", text)


def hidden(text: str) -> str:
    """The same length of text, where what a backslash protects is no mark any more."""
    text = FOREIGN.sub("\ufffd", text)
    return _ESCAPED.sub(lambda found: _BACKSLASH + _STAND_IN[found[1]], text)


def shown(text: str) -> str:
    """The words of a piece of a hidden text, as bags hold them.

    Example:
        >>> shown(hidden(r"a\\;  b"))
        'a; b'
    """
    return in_order(text.translate(_SHOWN))


def quotations(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is closed) of each quotation; one that is not closed on its line is none, but at the very end.

    Example:
        >>> list(quotations('a "b" c'))
        [(2, 5, True)]
    """
    start = -1
    for found in re.finditer('["“”\n]', text):
        if found[0] == "\n":
            start = -1
        elif start < 0:
            start = found.start() if found[0] != "”" else -1
        elif found[0] == {'"': '"', "“": "”"}[text[start]]:
            yield start, found.end(), True
            start = -1
    if start >= 0:
        yield start, len(text), False


def outside_quotations(
    pattern: re.Pattern[str], text: str, start: int, end: int, *, open_end: bool = False
) -> Iterator[re.Match[str]]:
    """Matches between two places that do not begin inside a quotation.

    Args:
        pattern: What to look for.
        text: Hidden.
        start: Where to begin.
        end: Where to stop.
        open_end: Whether a quotation that the end cuts off is one.

    Example:
        >>> [found.start() for found in outside_quotations(re.compile(";"), 'a; "b; c"', 0, 9)]
        [1]
    """
    spans = quotations(text[start:end])
    first, last = next(_placed(spans, start, open_end), (end, end))
    for found in pattern.finditer(text, start, end):
        while last <= found.start() < end and first < end:
            first, last = next(_placed(spans, start, open_end), (end, end))
        if not first < found.start() < last:
            yield found


def _placed(spans: Iterator[tuple[int, int, bool]], start: int, open_end: bool) -> Iterator[tuple[int, int]]:
    return ((start + first, start + last) for first, last, is_closed in spans if is_closed or open_end)


def _is_balanced(text: str) -> bool:
    """Whether each round bracket outside quotations has its other half."""
    depth, marked = 0, hidden(text)
    for found in outside_quotations(_BRACKETS, marked, 0, len(marked)):
        depth += 1 if found[0] == "(" else -1
        if depth < 0:
            return False
    return depth == 0
