"""Captions made of the words of another one: what a model that reads bags of words cannot tell from it.

Which words are nouns and adjectives is known without a tagger: they are those that are not in a short list of articles,
prepositions, conjunctions and forms of *be*. Runs of them are taken for noun phrases, whose last word is the noun.

Source: the perturbations of ARO and the swaps of NegCLIP (arXiv:2210.01936), which find parts of speech with spaCy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from photopic.data.scenes import with_article

ARTICLES = frozenset("a an the".split())
# what joins two things without saying which is which: the things can change places and the sentence stays true
JOINING = ARTICLES | frozenset("and or with near beside next to by some both".split())
FUNCTION_WORDS = JOINING | frozenset(
    "of on in at for from into onto over under above below behind before between left right front top bottom inside outside "
    "against around through across along that which who it its his her their there is are was were be being has have".split()
)
TRIES = 50  # shuffles of one kind before a caption is given up


def is_content(word: str) -> bool:
    """Whether a word is a noun or an adjective, as far as the list knows.

    Example:
        >>> is_content("bear"), is_content("of")
        (True, False)
    """
    return word.strip(".,;:!?\"'").lower() not in FUNCTION_WORDS


def phrases(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where each run of nouns and adjectives begins and ends.

    Example:
        >>> phrases("a bear left of a noto cat".split())
        [(1, 2), (5, 7)]
    """
    edges = np.diff([0, *(int(is_content(word)) for word in words), 0])
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


# --- hard negatives of NegCLIP


def swaps(caption: str) -> list[dict[str, str]]:
    """Every caption that an exchange of two phrases, two nouns or what stands before two nouns makes and that says something else.

    Two things that are only listed (``a bear and a cat``) are left where they are, since nothing would change.

    Args:
        caption: One sentence.

    Returns:
        Of each two phrases the captions by what was exchanged; phrases without any are left out.

    Example:
        >>> swaps("a bear left of a cat")
        [{'phrases': 'a cat left of a bear'}]
        >>> swaps("a red bear and an orange cat")
        [{'nouns': 'a red cat and an orange bear', 'adjectives': 'an orange bear and a red cat'}]
        >>> swaps("a bear and a cat")
        []
    """
    words = caption.split()
    found = [
        {kind: _exchanged(words, *spans) for kind, spans in _exchanges(words, first, second)}
        for first, second in combinations(phrases(words), 2)
    ]
    return [each for each in found if each]


def swapped(caption: str, rng: np.random.Generator) -> str | None:
    """One of ``swaps``, two phrases at random and then what they exchange; None where there is none.

    Example:
        >>> swapped("a bear left of a cat", np.random.default_rng(0))
        'a cat left of a bear'
    """
    found = swaps(caption)
    if not found:
        return None
    several = list(found[int(rng.integers(len(found)))].values())
    return several[int(rng.integers(len(several)))]


Span = tuple[int, int]


def _exchanges(words: Sequence[str], first: Span, second: Span) -> Iterator[tuple[str, tuple[Span, Span]]]:
    """What can be exchanged between two phrases so that the sentence says something else, with the places of both."""
    (a, b), (c, d) = first, second
    says_which = any(word.strip(",").lower() not in JOINING for word in words[b:c])
    nouns = (b - 1, b), (d - 1, d)
    before = (a, b - 1), (c, d - 1)
    same_noun, same_before = words[b - 1] == words[d - 1], words[a : b - 1] == words[c : d - 1]
    if says_which and not (same_noun and same_before):
        yield "phrases", (first, second)
    if not same_noun and not same_before:  # without anything before both, the nouns are the phrases
        yield "nouns", nouns
        yield "adjectives", before


def _exchanged(words: Sequence[str], first: Span, second: Span) -> str:
    (a, b), (c, d) = first, second
    pieces = [words[:a], words[c:d], words[b:c], words[a:b], words[d:]]
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    whole = [word for piece in pieces for word in piece]
    for place in (starts[1], starts[3]):  # an article must not tell that a word was moved
        if 0 < place < len(whole) and whole[place - 1] in ("a", "an"):
            whole[place - 1] = with_article(whole[place]).split()[0]
    return " ".join(whole)


# --- perturbations of ARO's order


def reorderings(caption: str, rng: np.random.Generator) -> dict[str, str] | None:
    """The four orders of ARO, all different from the caption and from each other.

    Args:
        caption: One sentence.
        rng: What shuffles.

    Returns:
        Captions by what was shuffled; None where the caption is too short for four.

    Example:
        >>> found = reorderings("a bear left of a cat on a red background", np.random.default_rng(0))
        >>> found["nouns and adjectives"]
        'a red left of a bear on a cat background'
    """
    words = caption.split()
    found: dict[str, str] = {}
    for kind, shuffle in ORDERS.items():
        for _ in range(TRIES):
            text = " ".join(shuffle(words, rng))
            if text not in (caption, *found.values()):
                found[kind] = text
                break
        else:
            return None
    return found


def _shuffled(words: Sequence[str], places: Sequence[int], rng: np.random.Generator) -> list[str]:
    """The words of some places in another order; the others stay."""
    found = list(words)
    for place, other in zip(places, rng.permutation(places).tolist(), strict=True):
        found[place] = words[other]
    return found


def _content(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    return _shuffled(words, [place for place, word in enumerate(words) if is_content(word)], rng)


def _others(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    return _shuffled(words, [place for place, word in enumerate(words) if not is_content(word)], rng)


def _trigrams(words: Sequence[str]) -> list[Sequence[str]]:
    return [words[start : start + 3] for start in range(0, len(words), 3)]


def _among_trigrams(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    pieces = _trigrams(words)
    return [word for place in rng.permutation(len(pieces)) for word in pieces[place]]


def _within_trigrams(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [word for piece in _trigrams(words) for word in _shuffled(piece, range(len(piece)), rng)]


ORDERS: dict[str, Callable[[Sequence[str], np.random.Generator], list[str]]] = {
    "nouns and adjectives": _content,
    "all but nouns and adjectives": _others,
    "trigrams": _among_trigrams,
    "words within trigrams": _within_trigrams,
}
