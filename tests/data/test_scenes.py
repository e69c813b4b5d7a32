"""Scenes: the same seed gives the same bytes, and the caption, masks, boxes and relations agree with the picture."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest

from photopic.data.emoji_world import HELD_OUT_STYLE, select
from photopic.data.scenes import (
    COLOURS,
    RELATIONS,
    Background,
    Placement,
    Scene,
    SceneOptions,
    compose,
    render_background,
    sample_scene,
    with_prefix,
)

KNOWN = tuple(item.name for item in select(split="known"))
OPTIONS = SceneOptions(
    concepts=KNOWN, styles=("noto", "twemoji"), objects=(0.4, 0.3, 0.15, 0.15), tinted=0.2, repeated=0.2
)
PINNED = {0: "f2b7d5022c3f0202", 1: "efc4244ceb99f149", 2: "158c21a9bb595594", 3: "7760948266470aa0"}


def fingerprint(scene: Scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.masks.tobytes() + scene.caption.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(OPTIONS, (5, index)) for index in range(150)]


@pytest.mark.parametrize("seed", PINNED)
def test_a_seed_gives_the_same_bytes_on_every_machine(seed: int) -> None:
    assert fingerprint(sample_scene(OPTIONS, seed)) == PINNED[seed]
    assert fingerprint(sample_scene(OPTIONS, seed)) == PINNED[seed]


def test_masks_are_disjoint_and_boxes_bound_them(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.masks.sum(0).max() <= 1, scene.caption
        for mask, (left, top, right, bottom) in zip(scene.masks, scene.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


def test_pixels_outside_every_object_are_the_background() -> None:
    scene = compose([Placement("bear", "noto", (0.5, 0.5), 0.5)], Background("red"))
    outside = scene.image[~scene.masks.any(0)]
    far = np.ones((64, 64), bool)
    far[12:52, 12:52] = False
    assert (scene.image[far] == COLOURS["red"]).all() and len(outside) > far.sum()
    assert not (scene.image[scene.masks[0]] == COLOURS["red"]).all(-1).all()


def test_captions_name_every_object_and_the_background(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.caption.endswith(scene.background.phrase)
        if max(scene.counts.values()) == 1:
            assert all(name in scene.caption for name in scene.counts), scene.caption
        else:
            assert scene.caption.split()[0] in ("two", "three", "four") or len(scene.counts) > 1, scene.caption


def test_relations_agree_with_the_boxes_and_come_in_pairs(scenes: list[Scene]) -> None:
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in scenes:
        centres = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
        for first, relation, second in scene.relations:
            axis, sign = divmod(RELATIONS.index(relation), 2)
            assert (centres[second, axis] - centres[first, axis]) * (1 - 2 * sign) > 0
            assert (second, opposite[relation], first) in scene.relations
        if len(scene.placements) == 2 and len(scene.counts) == 2:
            first, relation, second = scene.relations[0]
            names = [scene.placements[first].concept, scene.placements[second].concept]
            assert (
                scene.caption.index(names[0]) <= scene.caption.index(f" {relation} ") < scene.caption.rindex(names[1])
            )


def test_attributes_and_counts_describe_the_placements(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert sum(scene.counts.values()) == len(scene.placements) == len(scene.attributes)
        for item, attribute in zip(scene.placements, scene.attributes, strict=True):
            assert attribute == {"style": item.style} | ({"colour": item.tint} if item.tint else {})
            assert item.tint is None or len(scene.counts) < len(scene.placements) or item.tint in scene.caption


def test_default_scenes_never_use_the_held_out_style() -> None:
    options = SceneOptions(concepts=KNOWN)
    assert all(item.style != HELD_OUT_STYLE for seed in range(60) for item in sample_scene(options, seed).placements)


def test_an_object_keeps_its_place_at_any_size() -> None:
    placements = [Placement("bear", "noto", (0.3, 0.6), 0.4)]
    small, large = (compose(placements, Background("blue", "striped"), size=size) for size in (64, 128))
    assert np.abs(small.boxes * 2 - large.boxes).max() <= 4


def test_objects_may_hang_over_the_edge() -> None:
    scene = compose([Placement("bear", "noto", (0.0, 0.0), 0.5)], Background("white"))
    assert scene.boxes[0, 0] == 0 and scene.boxes[0, 1] == 0


@pytest.mark.parametrize("kind", ["flat", "gradient", "striped", "dotted", "checkered"])
def test_backgrounds_differ_by_kind_and_stay_in_range(kind: str) -> None:
    canvas = render_background(Background("teal", kind, "pink" if kind == "gradient" else None), 64)
    assert canvas.shape == (64, 64, 3) and canvas.min() >= 0 and canvas.max() <= 1
    assert (canvas.reshape(-1, 3).std(0).max() > 0.01) == (kind != "flat")


def test_wrong_names_say_what_exists() -> None:
    with pytest.raises(KeyError, match="colours are"):
        render_background(Background("mauve"), 8)
    with pytest.raises(KeyError, match="use flat"):
        render_background(Background("red", "wavy"), 8)
    with pytest.raises(ValueError, match="second colour"):
        render_background(Background("red", "gradient"), 8)
    with pytest.raises(ValueError, match="at least one"):
        sample_scene(SceneOptions(concepts=()), 0)


def test_with_prefix_puts_the_token_before_the_noun() -> None:
    assert with_prefix("a bear on a red background", "bear", "<mine>") == "a <mine> bear on a red background"
    assert with_prefix("a caterpillar and a cat", "cat", "<mine>") == "a caterpillar and a <mine> cat"
    assert with_prefix("Bears in the snow", "bear", "<mine>") == "<mine> Bears in the snow"
    with pytest.raises(ValueError, match="not in the caption"):
        with_prefix("a cat", "bear", "<mine>")


def test_things_placed_anywhere_hardly_touch_and_shrink_where_they_do_not_fit() -> None:
    options = SceneOptions(concepts=KNOWN, size=32, objects=(0.0, 0.3, 0.3, 0.4), sides=(0.2, 0.7))
    drawn = [sample_scene(options, (6, index)).placements for index in range(60)]
    sides = [item.side for placed in drawn for item in placed]
    assert min(sides) >= 0.2 and max(sides) > 0.5
    for placed in drawn:
        for one, other in combinations(placed, 2):
            gap = max(abs(a - b) for a, b in zip(one.centre, other.centre, strict=True))
            assert gap >= 0.45 * (one.side + other.side)
        assert all(item.side / 2 <= place <= 1 - item.side / 2 for item in placed for place in item.centre)
    large = SceneOptions(concepts=KNOWN, size=32, objects=(0.0, 0.0, 0.0, 1.0), sides=(0.9, 0.95))
    assert max(item.side for item in sample_scene(large, 0).placements) < 0.9
