"""Labelled images, shots, base and new classes, divisions; the emoji tasks built of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.data.emoji_tasks import GROUPS, TASKS, emoji_task
from photopic.data.few_shot import LabelledImages, base_and_new, labelled_folder, split


def numbered(*counts: int) -> LabelledImages:
    """Pictures whose first pixel is their number."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return LabelledImages(images, labels, tuple("abcdefg"[: len(counts)]))


def numbers(data: LabelledImages) -> list[int]:
    return [int(image[0, 0, 0]) for image in data.images]


def test_shots_are_exact_without_replacement_and_nested() -> None:
    data = numbered(5, 8, 6)
    four, rest = data.draw(4, seed=3)
    assert four.counts == (4, 4, 4)
    assert rest.counts == (1, 4, 2)
    assert sorted(numbers(four) + numbers(rest)) == list(range(19))
    assert set(numbers(data.shots(2, seed=3))) < set(numbers(four))
    assert numbers(four) == numbers(data.shots(4, seed=3)) != numbers(data.shots(4, seed=4))
    assert all(data.labels[number] == label for number, label in zip(numbers(four), four.labels, strict=True))
    with pytest.raises(DataError, match="class a: expected 6 pictures or more to draw 6 shots, found 5"):
        data.shots(6, seed=0)
    with pytest.raises(DataError, match="expected 1 or more"):
        data.shots(0, seed=0)


def test_classes_are_relabelled_in_the_order_given() -> None:
    found = numbered(2, 1, 3).classes([2, 0])
    assert found.names == ("c", "a")
    assert {(number, label) for number, label in zip(numbers(found), found.labels.tolist(), strict=True)} == {
        (0, 1), (1, 1), (3, 0), (4, 0), (5, 0)
    }  # fmt: skip


def test_base_classes_are_the_first_half_by_name() -> None:
    names = ["owl", "ant", "mug", "bear", "fox"]
    base, new = base_and_new(names)
    assert [names[index] for index in base] == ["ant", "bear", "fox"]
    assert [names[index] for index in new] == ["mug", "owl"]
    with pytest.raises(DataError, match="four classes or more"):
        base_and_new(names[:3])


def test_a_division_keeps_classes_on_both_sides_and_nothing_twice() -> None:
    train, test = split(numbered(10, 2, 4), 0.3, seed=0)
    assert (train.counts, test.counts) == ((7, 1, 3), (3, 1, 1))
    assert sorted(numbers(train) + numbers(test)) == list(range(16))
    assert [part.counts for part in split(numbered(10, 2, 4), 0.01, seed=0)] == [(9, 1, 3), (1, 1, 1)]
    assert [part.counts for part in split(numbered(10, 2, 4), 0.99, seed=0)] == [(1, 1, 1), (9, 1, 3)]
    with pytest.raises(DataError, match="class b: expected two pictures"):
        split(numbered(3, 1), 0.5, seed=0)
    with pytest.raises(DataError, match="test_share"):
        split(numbered(3, 3), 1.0, seed=0)


def test_what_does_not_fit_together_is_refused() -> None:
    images = list(np.zeros((2, 4, 4, 3), np.uint8))
    for labels, names, wrong in (
        ([0], ("a", "b"), "one a picture, 2, found 1"),
        ([0, 2], ("a", "b"), "found 2"),
        ([0, 1], ("a", "a"), "each once"),
        ([0, 1], ("a", ""), "none empty"),
    ):
        with pytest.raises(DataError, match=wrong):
            LabelledImages(images, np.array(labels), names)


def test_a_folder_of_classes_is_read_when_asked_for(tmp_path: Path) -> None:
    for name, count in (("mug", 2), ("bear", 3)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (8 + number, 6), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    data = labelled_folder(tmp_path)
    assert data.names == ("bear", "mug")
    assert data.counts == (3, 2)
    few, rest = data.draw(2, seed=0)
    assert (few.counts, rest.counts) == ((2, 2), (1, 0))
    assert [image.shape[2] for image in few.images] == [3] * 4
    assert data.digest == labelled_folder(tmp_path).digest != few.digest
    with pytest.raises(DataError, match="found pictures alone"):
        labelled_folder(tmp_path / "mug")
    (tmp_path / "fox").mkdir()
    with pytest.raises(DataError, match="fox"):
        labelled_folder(tmp_path)


@pytest.mark.parametrize("name", TASKS)
def test_train_and_test_pictures_of_a_task_are_all_different(name: str) -> None:
    train, test = emoji_task(name, classes=3, train_per_class=4, test_per_class=3, size=32)
    assert train.names == test.names
    assert (train.counts, test.counts) == ((4,) * 3, (3,) * 3)
    every = [image.tobytes() for image in (*train.images, *test.images)]
    assert len(set(every)) == 21
    again, _ = emoji_task(name, classes=3, train_per_class=4, test_per_class=3, size=32)
    assert again.digest == train.digest
    assert emoji_task(name, classes=3, train_per_class=4, test_per_class=3, size=32, seed=1)[0].digest != train.digest


def test_the_sides_of_a_task_share_no_style_or_concept() -> None:
    rng = np.random.default_rng(0)
    for name, (train, test) in TASKS["held-out-concepts"](rng).items():
        assert not set(train) & set(test)
        assert emoji_world.concept(name).split == "held_out"
    groups = TASKS["groups"](rng)
    assert len(groups) == len(GROUPS)
    for train, test in groups.values():
        assert min(len(train), len(test)) >= 4
        assert not {name for name, _ in train} & {name for name, _ in test}


def test_a_task_or_size_there_is_not_is_refused() -> None:
    with pytest.raises(DataError, match="did you mean groups"):
        emoji_task("group")
    with pytest.raises(DataError, match="expected 2 to 24 for groups, found 25"):
        emoji_task("groups", classes=25)
    with pytest.raises(DataError, match="test_per_class: expected 1 or more, found 0"):
        emoji_task("groups", test_per_class=0)
