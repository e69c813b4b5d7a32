"""Drawing a graph: its sentence, its regions, boxes found for relations, and one line for what cannot be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.data.layout import Layout, Region
from photopic.data.renderings import classes
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.bag_record import BagRecord, ImageFile
from photopic.knowledge.graph_drawing import drawing_of, read_drawing
from photopic.knowledge.relation_layout import boxes_by_relations, holds
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.facts import parse

OPTIONS = SceneOptions(classes(), objects=(0.25, 0.25, 0.25, 0.25), tinted=0.3, repeated=0.3)


def owls(*boxes: tuple[int, int, int, int] | None, **more: object) -> BagOfConcepts:
    objects = tuple(ConceptObject(f"owl {number}", box=box) for number, box in enumerate(boxes, start=1))
    return BagOfConcepts(objects=objects, **more)


@pytest.mark.parametrize("seed", range(20))
def test_the_sentence_states_the_facts_of_the_scene_and_each_box_is_a_region(seed: int) -> None:
    scene = sample_scene(OPTIONS, (3, seed))
    drawing = drawing_of(bag_of_scene(scene), (64, 64))
    said = parse(drawing.prompt)
    assert {item.concept for item in said.objects} == set(scene.counts) and said.background == scene.background
    if said.count is None:
        assert [(item.style, item.colour) for item in said.objects] == [
            (item.style, item.tint) for item in scene.placements
        ]
    if len(scene.placements) == 2 and said.count is None and scene.relations:
        assert said.relation == scene.relations[0][1]
    covered = np.mean([region.coverage(64, 64) for region in drawing.layout.regions], 0) > 0
    for left, top, right, bottom in scene.boxes.astype(int):
        assert covered[top:bottom, left:right].all()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_are_found_such_that_every_relation_of_a_scene_holds_and_nothing_overlaps(seed: int) -> None:
    scene = sample_scene(replace(OPTIONS, objects=(0.0, 0.3, 0.3, 0.4)), (4, seed))
    bag = bag_of_scene(scene)
    blind = replace(bag, objects=tuple(replace(item, box=None) for item in bag.objects))
    found = boxes_by_relations(blind, {})
    assert all(holds(each.predicate, found[each.subject], found[each.object]) for each in bag.relations)
    regions = [Region(name, box) for name, box in found.items()]
    assert not Layout(tuple(regions)).may_overlap  # it would refuse regions that share ground
    assert all(0 <= edge <= 1 for box in found.values() for edge in box)


def test_a_known_box_stays_and_the_others_are_placed_around_it() -> None:
    bag = owls((32, 8, 64, 40), None, relations=(Relation("owl 2", "to the left of", "owl 1"),))
    found = boxes_by_relations(bag, {"owl 1": (0.5, 0.125, 1.0, 0.625)})
    assert found["owl 1"] == (0.5, 0.125, 1.0, 0.625) and holds("left of", found["owl 2"], found["owl 1"])


def test_a_relation_that_is_told_from_the_other_side_is_turned_round() -> None:
    pair = (ConceptObject("owl 1"), ConceptObject("bear 1"))
    bag = BagOfConcepts(objects=pair, relations=(Relation("bear 1", "to the right of", "owl 1"),))
    assert drawing_of(bag).prompt == "an owl left of a bear"


def test_of_more_than_two_things_each_region_has_a_sentence_of_its_own() -> None:
    objects = tuple(
        ConceptObject(f"{name} 1", box=(x, 0, x + 16, 16)) for name, x in (("owl", 0), ("bear", 20), ("cat", 40))
    )
    bag = BagOfConcepts(
        background=("red background",), objects=objects, relations=(Relation("owl 1", "left of", "cat 1"),)
    )
    drawing = drawing_of(bag)
    own = [region.prompt for region in drawing.layout.regions]
    assert own == [f"{noun} on a red background" for noun in ("an owl", "a bear", "a cat")]
    assert [region.words for region in drawing.layout.regions] == ["owl", "bear", "cat"]
    assert not any(region.prompt for region in drawing_of(replace(bag, objects=objects[::2])).layout.regions)


def test_objects_of_one_phrase_share_a_region_and_are_counted() -> None:
    drawing = drawing_of(owls((0, 0, 16, 16), (48, 48, 64, 64)))
    (region,) = drawing.layout.regions
    assert drawing.prompt == "two owls" and region.words == "owls"
    assert region.mask is not None and region.mask.sum() == 2 * 16 * 16 and region.mask[0, 0] and region.mask[63, 63]


def test_boxes_without_a_size_lie_in_the_smallest_canvas_that_holds_them() -> None:
    assert drawing_of(owls((0, 0, 256, 512))).layout.regions[0].box == (0, 0, 0.5, 1)
    assert drawing_of(owls((0, 0, 32, 32))).layout.regions[0].box == (0, 0, 0.5, 0.5)


def test_regions_may_overlap_where_boxes_do() -> None:
    both = (ConceptObject("owl 1", box=(0, 0, 40, 64)), ConceptObject("bear 1", box=(30, 0, 64, 64)))
    assert drawing_of(BagOfConcepts(objects=both)).layout.may_overlap
    apart = (both[0], replace(both[1], box=(40, 0, 64, 64)))
    assert not drawing_of(BagOfConcepts(objects=apart)).layout.may_overlap


@pytest.mark.parametrize(
    ("bag", "size", "reason"),
    [
        (BagOfConcepts(theme="night"), None, "expected objects to draw, found none listed"),
        (owls((0, 0, 70, 10)), (64, 64), r"'owl 1': the box \[0, 0, 70, 10\] leaves the picture of 64 x 64"),
        (
            owls(None, None, relations=(Relation("owl 1", "above", "owl 2"), Relation("owl 2", "above", "owl 1"))),
            None,
            "no places for owl 1, owl 2 such that all of owl 1 above owl 2; owl 2 above owl 1 hold; give boxes",
        ),
        (owls(None, relations=(Relation("owl 1", "left of", "owl 1"),)), None, "no places for owl 1"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(bag: BagOfConcepts, size: tuple[int, int] | None, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        drawing_of(bag, size)


def test_a_file_is_read_with_the_size_of_its_picture(tmp_path: Path) -> None:
    record = BagRecord(owls((0, 0, 50, 40)), ImageFile("a.png", "", 100, 80))
    write_bags(tmp_path / "one.jsonl", [record])
    assert read_drawing(tmp_path / "one.jsonl").layout.regions[0].box == (0, 0, 0.5, 0.5)
    write_bags(tmp_path / "two.jsonl", [record, record])
    with pytest.raises(DataError, match=r"two\.jsonl: expected one graph to draw, found 2"):
        read_drawing(tmp_path / "two.jsonl")
