"""Captions of the same words that say something else, and cases whose false captions are false by construction."""

from __future__ import annotations

import re

import numpy as np
import pytest

from photopic.data.aro import PARTS, aro_case
from photopic.data.caption_swaps import is_content, reorderings, swapped, swaps
from photopic.data.scenes import RELATIONS

SENTENCE = "a red bear left of an orange cat on a blue background"


def bag(caption: str) -> list[str]:
    """Its words; a and an are one."""
    return sorted("a" if word == "an" else word for word in caption.split())


@pytest.mark.parametrize("part", PARTS)
def test_every_caption_of_a_case_has_the_same_words_and_all_differ(part: str) -> None:
    for number in range(30):
        case = aro_case(part, (5, number))  # type: ignore[arg-type]
        assert len(set(case.captions)) == len(case.captions) == len(case.kinds) + 1 == (5 if part == "order" else 2)
        assert {tuple(bag(caption)) for caption in case.captions} == {tuple(bag(case.captions[0]))}
        again = aro_case(part, (5, number))  # type: ignore[arg-type]
        assert again.captions == case.captions and (again.image == case.image).all()


def test_a_false_relation_names_the_two_things_the_other_way_round_and_a_false_attribution_their_colours() -> None:
    said = re.compile(rf"an? (.+) ({'|'.join(RELATIONS)}) an? (.+) on an? (.+)")
    for number in range(30):
        case = aro_case("relation", number)
        true, false = (said.fullmatch(caption).groups() for caption in case.captions)  # type: ignore[union-attr]
        assert false == (true[2], true[1], true[0], true[3]) and case.kinds == (true[1],)
        true, false = (said.fullmatch(each).groups() for each in aro_case("attribution", number).captions)  # type: ignore[union-attr]
        colours = [[each.split()[0] for each in (two[0], two[2])] for two in (true, false)]
        assert colours[0] == colours[1][::-1] and colours[0] != colours[1]
        assert [two[0].split()[1:] for two in (true, false)] == [true[0].split()[1:]] * 2 and true[1::2] == false[1::2]


def test_each_order_moves_what_it_says() -> None:
    words = SENTENCE.split()
    for seed in range(20):
        found = {kind: text.split() for kind, text in reorderings(SENTENCE, np.random.default_rng(seed)).items()}  # type: ignore[union-attr]
        moved = found["nouns and adjectives"]
        assert all(a == b for a, b in zip(words, moved, strict=True) if not is_content(a))
        moved = found["all but nouns and adjectives"]
        assert all(a == b for a, b in zip(words, moved, strict=True) if is_content(a))
        pieces = [words[start : start + 3] for start in range(0, 12, 3)]
        within = [found["words within trigrams"][start : start + 3] for start in range(0, 12, 3)]
        assert [sorted(piece) for piece in pieces] == [sorted(piece) for piece in within]
        among = " ".join(found["trigrams"])
        assert all(" ".join(piece) in among for piece in pieces)
    assert reorderings("a bear", np.random.default_rng(0)) is None


def test_two_things_that_are_only_listed_stay_and_the_article_does_not_tell() -> None:
    assert swaps("a bear and a cat") == swaps("a bear") == swaps("a bear near a cat") == []
    assert {"adjectives": "an orange bear and a red cat", "nouns": "a red cat and an orange bear"} in swaps(
        "a red bear and an orange cat"
    )
    assert swaps("the old man left of the old man") == []
    every = [caption for pair in swaps(SENTENCE) for caption in pair.values()]
    assert len(every) == len(set(every)) == 9 and SENTENCE not in every  # three pairs, three kinds
    assert all(bag(caption) == bag(SENTENCE) for caption in every)
    assert not any(re.search(r"\ba [aeiou]|\ban [^aeiou]", caption) for caption in every)
    assert {swapped(SENTENCE, np.random.default_rng(seed)) for seed in range(200)} == set(every)
