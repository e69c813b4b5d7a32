"""A layout out of a prompt: what counts as a thing, relations, as many as are named, sentences of their own, refusals."""

from __future__ import annotations

from itertools import pairwise

import pytest

from photopic.core.errors import DataError
from photopic.data.scenes import RELATIONS
from photopic.knowledge.prompt_layout import layout_of_prompt
from photopic.knowledge.relation_layout import holds


def words(prompt: str) -> list[str]:
    return [region.words for region in layout_of_prompt(prompt).regions]


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("a <mine> bear left of a <cup> mug on a striped red background", ["<mine> bear", "<cup> mug"]),
        ("a photo of an owl, a dog and the red bus in a forest at night", ["owl", "dog", "red bus"]),
        ("a bear with a hat beside a cat, highly detailed", ["bear", "cat"]),
        ("cat and dog", ["cat", "dog"]),
        ("<mine> bear on top of a table", ["<mine> bear", "table"]),
        ("a cat in a box left of a dog in a garden", ["cat in a box", "dog"]),
        ("two owls above a cat.", ["owls", "cat"]),
        ("a cat and a cat", ["cat"]),
    ],
)
def test_things_are_what_stands_between_articles_and_joints(prompt: str, things: list[str]) -> None:
    assert words(prompt) == things


@pytest.mark.parametrize("relation", [*RELATIONS, "to the right of", "underneath"])
def test_boxes_stand_as_the_relation_says_in_the_middle_of_the_picture(relation: str) -> None:
    first, second = (each.box for each in layout_of_prompt(f"a cat {relation} a dog on a red background").regions)
    assert first and second
    assert holds({"to the right of": "right of", "underneath": "below"}.get(relation, relation), first, second)
    for axis in (0, 1):
        assert min(first[axis], second[axis]) == pytest.approx(1 - max(first[axis + 2], second[axis + 2]))


def test_a_chain_of_relations_makes_a_row_of_smaller_places() -> None:
    boxes = [each.box for each in layout_of_prompt("a cat left of a dog left of a bird").regions]
    assert all(a and b and holds("left of", a, b) for a, b in pairwise(boxes))


@pytest.mark.parametrize("count", range(1, 7))
def test_any_number_of_things_has_a_place_each(count: int) -> None:
    layout = layout_of_prompt(", ".join(f"a <s{number}> bear" for number in range(count)))  # refused where they overlap
    assert len(layout.regions) == count and all(
        each.box and 0 <= min(each.box) < max(each.box) <= 1 for each in layout.regions
    )


def test_a_number_is_as_many_boxes_in_one_region() -> None:
    owls, cat = layout_of_prompt("three owls above a cat").regions
    assert owls.mask is not None and cat.box is not None
    one = (cat.box[2] - cat.box[0]) * (cat.box[3] - cat.box[1])
    assert owls.mask.mean() == pytest.approx(3 * one, rel=0.15)


def test_own_prompts_say_one_thing_each_on_the_same_ground() -> None:
    layout = layout_of_prompt(
        "a photo of a <mine> bear left of two cats, drawn in ink, on a red background", own_prompts=True
    )
    assert [each.prompt for each in layout.regions] == [
        "a photo of a <mine> bear, drawn in ink on a red background",
        "a photo of two cats, drawn in ink on a red background",
    ]
    assert not any(each.prompt for each in layout_of_prompt("a cat and a dog").regions)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("  ", "expected things such as 'a bear left of a cat', found none; give a layout"),
        (
            "a cat left of a dog above a bird left of a <a> cat above a fish below a cow right of a <b> cow",
            "no places for .*cat left of dog",
        ),
    ],
)
def test_what_has_no_layout_is_one_line(prompt: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        layout_of_prompt(prompt)
    assert str(caught.value).startswith("prompt ")
