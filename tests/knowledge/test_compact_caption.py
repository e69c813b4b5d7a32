"""The captioner's short form: a scene comes back as it was, any order of words is repairs or one line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photopic.core.errors import DataError
from photopic.data.renderings import classes
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.knowledge.compact_caption import vocabulary, write_scene
from photopic.knowledge.compact_reading import read_compact
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.scene_graph import compare

OPTIONS = SceneOptions(classes(), objects=(0.25, 0.25, 0.25, 0.25), tinted=0.3, repeated=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_a_scene_written_and_read_again_is_the_scene(seed: int) -> None:
    scene = sample_scene(OPTIONS, (7, seed))
    found, truth = read_compact(" ".join(write_scene(scene))), bag_of_scene(scene)
    same = compare(found.bag, truth)
    assert (
        not found.repairs
        and same.located.f1 == same.relations.f1 == same.located_relations.f1 == same.attributes.f1 == 1
    )
    assert same.mean_iou == 1
    fields = ("style", "theme", "background")
    assert [getattr(found.bag, name) for name in fields] == [getattr(truth, name) for name in fields]


def test_objects_come_in_reading_order_whatever_the_order_they_were_drawn_in() -> None:
    for seed in range(20):
        scene = sample_scene(OPTIONS, (8, seed))
        turned = replace(
            scene, placements=scene.placements[::-1], boxes=scene.boxes[::-1], masks=scene.masks[::-1],
            relations=tuple((len(scene.boxes) - 1 - a, r, len(scene.boxes) - 1 - b) for a, r, b in scene.relations),
        )  # fmt: skip
        assert write_scene(turned) == write_scene(scene)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(st.lists(st.sampled_from(vocabulary()[:160]) | st.sampled_from(["nonsense", "#9", "65", "-3"]), max_size=40))
def test_any_words_in_any_order_are_a_bag_or_one_line(words: list[str]) -> None:
    text = " ".join(words)
    try:
        found = read_compact(text, (640, 480))
    except DataError as error:
        assert "no name of an object" in str(error) and "\n" not in str(error)
        return
    kept = sum(each in {name.replace(" ", "_") for name in classes()} for each in words)
    assert len(found.bag.objects) == kept
    assert all(box[2] <= 640 and box[3] <= 480 for box in (item.box for item in found.bag.objects) if box)


@pytest.mark.parametrize(
    "text, kind",
    [
        ("noto flat red owl 7 20 25", "position"),
        ("noto flat red owl 25 20 7 44", "position"),
        ("noto flat owl 7 20 25 44", "missing section"),
        ("noto gradient red owl 7 20 25 44", "missing section"),
        ("noto left_of flat red owl 7 20 25 44", "unread"),
        ("noto flat red owl above 7 20 25 44", "unread"),
        ("noto flat red owl 7 20 25 44 #1 above #2", "incomplete relation"),
        ("noto flat red owl 7 20 25 44 #1 above #1", "incomplete relation"),
        ("noto flat red owl 7 20 25 44 bear 30 20 60 44 #1 above #2 #2 above #1", "chained relation"),
    ],
)
def test_each_damage_is_told(text: str, kind: str) -> None:
    assert [repair.kind for repair in read_compact(text).repairs][:1] == [kind]


def test_every_word_of_a_scene_is_a_token() -> None:
    words = set(vocabulary())
    assert len(words) == len(vocabulary())
    for seed in range(50):
        assert words.issuperset(write_scene(sample_scene(OPTIONS, (9, seed))))
