"""The words of a prompt: which there are, and where one stands, whatever white space and Unicode form it is written with."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any


def words_of(prompt: str) -> tuple[str, ...]:
    """The words of a prompt in their order, each once; a token such as ``<mine>`` is one.

    Example:
        >>> words_of("a <mine> bear, on a red sofa")
        ('a', '<mine>', 'bear', 'on', 'red', 'sofa')
    """
    composed = unicodedata.normalize("NFC", prompt)  # an accent of its own would be no letter
    return tuple(dict.fromkeys(re.findall(r"<[^<>\s]+>|\w+(?:[-'’]\w+)*", composed)))


def with_all_vectors(text: str, tokenizers: Iterable[Any]) -> str:
    """A prompt in which a new word of several vectors is said in full, ``<mine> <mine>_1 ...``, as some pipelines do themselves.

    Args:
        text: The prompt.
        tokenizers: That know the new words, each vector being one.
    """
    known = {word for tokenizer in tokenizers for word in tokenizer.get_added_vocab()}
    for word in sorted(each for each in known if f"{each}_1" in known):
        count = next(number for number in range(1, len(known) + 1) if f"{word}_{number}" not in known)
        full = " ".join([word, *(f"{word}_{number}" for number in range(1, count))])
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _, full=full: full, text)  # type: ignore[misc]
    return text


def spans_of(prompt: str, words: str) -> list[tuple[int, int]]:
    """Where a word, or several in a row, stand in a prompt as whole words: (begin, end) in characters, all occurrences.

    Case does not matter, nor whether accents are letters' own or combined, nor how much white space of which kind lies between.

    Args:
        prompt: The whole prompt.
        words: What to look for.

    Example:
        >>> spans_of("a red\\u00a0  sofa and desks", "red sofa"), spans_of("desks", "sks")
        ([(2, 12)], [])
    """
    letters, place = "", []  # decomposed, and for each character of that the one of the prompt it comes from
    for index, character in enumerate(prompt):
        apart = unicodedata.normalize("NFD", character)
        letters += apart
        place += [index] * len(apart)
    wanted = [re.escape(unicodedata.normalize("NFD", word)) for word in words.split()]
    if not wanted:
        return []
    row = r"\s+".join(wanted)
    found = re.finditer(rf"(?<!\w){row}(?!\w)", letters, re.IGNORECASE)
    whole = [
        match.span() for match in found if not unicodedata.combining(letters[match.end() : match.end() + 1] or " ")
    ]
    return [(place[begin], place[end - 1] + 1) for begin, end in whole]
