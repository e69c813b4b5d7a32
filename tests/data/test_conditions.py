"""Conditions: what scenes and pictures are taken apart into, their types, their file, and what users give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from photopic.core.errors import DataError
from photopic.data.condition_file import load_conditions, save_conditions
from photopic.data.conditioned_pictures import ConditionedPictures, training_scene
from photopic.data.conditions import EIGHT, KINDS, Conditions
from photopic.data.extraction import Embedded, depth, edges, from_picture, from_scene, instances, masked, random_hidden
from photopic.data.own_conditions import read_objects, read_sketch
from photopic.data.scenes import Background, Placement, Scene, compose
from photopic.metrics.conditions import line_f1

OVERLAPPING = [Placement("bear", "noto", (0.4, 0.5), 0.6), Placement("cat", "noto", (0.65, 0.55), 0.5)]


def scene(style: str = "noto") -> Scene:
    return compose(
        [Placement(each.concept, style, each.centre, each.side) for each in OVERLAPPING], Background("yellow")
    )


def everything() -> Conditions:
    hidden = np.zeros((64, 64), bool)
    hidden[:, 32:] = True
    return from_scene(scene(), hidden=hidden, embedded=Embedded(np.ones(4, np.float16), "abc"))


def test_a_scene_is_exactly_known() -> None:
    found, truth = everything(), scene()
    assert found.names == EIGHT and found.sources["depth"] == "exact"
    number = found.channels("instances")[0] * 4
    for index, mask in enumerate(truth.masks):
        assert (np.round(number[mask]) == index + 1).all()
        assert found.channels("depth")[0][mask] == pytest.approx((index + 1) / 4, abs=0.002)
    assert (number[~truth.masks.any(0)] == 0).all()
    contours = found.values["instances"][1] > 0
    assert contours[truth.masks.any(0)].any() and not contours[~truth.masks.any(0)].any()


def test_what_is_hidden_is_0_and_what_is_kept_is_the_picture() -> None:
    image, hidden = scene().image, np.zeros((64, 64), bool)
    hidden[10:30, 5:40] = True
    found = Conditions(64, {"masked": masked(image, hidden)}).channels("masked")
    clean = (image / np.float32(127.5) - 1).transpose(2, 0, 1)
    assert found[:3] == pytest.approx(clean * ~hidden, abs=1e-6)  # x (1 - m)
    assert (found[:3][:, hidden] == 0).all() and (found[3] == ~hidden).all()


@pytest.mark.parametrize("style", ["openmoji", "fluent-flat"])
def test_line_art_of_the_two_pairs_lies_on_the_edges_of_its_style(style: str) -> None:
    whole = compose([Placement("cat", style, (0.5, 0.5), 0.8)], Background("white"))
    other = compose([Placement("key", style, (0.5, 0.5), 0.8)], Background("white"))
    drawn, lines = (from_scene(whole, drawn=each).values["sketch"][0] > 127 for each in (True, False))
    strange = from_scene(other, drawn=True).values["sketch"][0] > 127
    assert line_f1(drawn, lines) > 0.85 and line_f1(strange, lines) < 0.55
    assert from_scene(whole, drawn=True).sources["sketch"] == "line art"
    assert from_scene(scene("noto"), drawn=True).sources["sketch"] != "line art"  # it has none that fits


def test_any_picture_gives_all_but_what_nobody_knows() -> None:
    image = scene().image
    found = from_picture(image)
    assert found.names == ("palette", "sketch", "instances", "intensity")
    whole = found.values["instances"][0] > 0  # the two overlap, so they are one part
    truth = scene().masks.any(0)
    assert (whole & truth).sum() / (whole | truth).sum() > 0.85


def test_a_random_part_is_hidden_of_every_kind_and_never_all_or_nothing() -> None:
    drawn = [random_hidden(np.random.default_rng(seed), 32, [np.eye(32, dtype=bool)]) for seed in range(60)]
    assert all(0 < each.mean() < 1 for each in drawn)
    assert any((each == np.eye(32, dtype=bool)).all() for each in drawn) and any(each.mean() == 0.5 for each in drawn)


def test_every_condition_has_a_picture_of_itself() -> None:
    found = everything()
    pictures = {name: found.picture(name, 96) for name in found.names}
    assert {each.shape for each in pictures.values()} == {(96, 96, 3)}
    assert all(each.min() < each.max() for each in pictures.values())


def test_a_file_keeps_every_byte_and_the_same_conditions_give_the_same_file(tmp_path: Path) -> None:
    found = everything()
    for name in ("a", "b"):
        save_conditions(found, tmp_path / name)
    again = load_conditions(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert again.names == found.names and again.sources == found.sources and again.encoder == "abc"
    for name in found.names[1:]:
        assert (again.values[name] == found.values[name]).all() and again.values[name].dtype == found.values[name].dtype


@pytest.mark.parametrize(
    ("arrays", "about", "said"),
    [
        ({}, None, "another file"),
        ({"depth": np.zeros((1, 9, 8), np.uint8)}, {}, r"depth: expected a condition of 8 pixels"),
        ({"weather": np.zeros(3, np.uint8)}, {}, "weather: expected a condition"),
        ({"depth": np.zeros((1, 8, 8), np.float32)}, {}, "depth: expected uint8"),
        ({"palette": np.full(156, np.nan, np.float32)}, {}, "palette: expected float32"),
        ({"palette": np.zeros(156, np.float32)}, {}, "shares of about 1"),
        ({}, {"size": 10**9}, "size: expected 1 to"),
        ({}, {"size": True}, "size: expected 1 to"),
        ({}, {"sources": [1]}, "sources: expected"),
        ({}, {"format": "other"}, "another file"),
        ({"embedding": np.ones(4, np.float16)}, {}, "digest of its encoder"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], about: object, said: str) -> None:
    stated = {"format": "photopic conditions 1", "size": 8, "sources": {}, "encoder": ""}
    metadata = None if about is None else {"conditions": json.dumps({**stated, **about})}  # type: ignore[dict-item]
    save_file(arrays, tmp_path / "x.conditions", metadata)
    with pytest.raises(DataError, match=said):
        load_conditions(tmp_path / "x.conditions")
    (tmp_path / "cut").write_bytes((tmp_path / "x.conditions").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"another file|expected"):
        load_conditions(tmp_path / "cut")


def test_sets_join_only_at_one_size_and_later_ones_count() -> None:
    both = everything().joined(Conditions(64, {"caption": "other"}))
    assert both.values["caption"] == "other" and both.only(["palette"]).encoder == ""
    with pytest.raises(DataError, match="one size"):
        both.joined(Conditions(32, {}))
    with pytest.raises(DataError, match=f"expected one of {', '.join(KINDS)}"):
        Conditions(8, {"colour": 1})
    with pytest.raises(DataError, match="square"):
        from_picture(np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize("hidden", [np.ones((64, 64), bool), np.zeros((64, 64), bool), np.eye(32, dtype=bool)])
def test_masks_that_are_empty_full_or_of_another_size_are_refused(hidden: np.ndarray) -> None:
    with pytest.raises(DataError, match="mask: expected"):
        masked(scene().image, hidden)


def test_drawings_are_told_from_photos_and_from_inverted_ones(tmp_path: Path) -> None:
    lines = np.full((64, 64), 255, np.uint8)
    lines[20:24] = 0
    for name, picture in (("lines", lines), ("inverted", 255 - lines), ("photo", np.full((64, 64), 120, np.uint8))):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    assert (read_sketch(tmp_path / "lines.png", 64)[0] == 255 - lines).all()
    assert (read_sketch(tmp_path / "inverted.png", 64, inverted=True)[0] == 255 - lines).all()
    with pytest.raises(DataError, match="add --invert-sketch"):
        read_sketch(tmp_path / "inverted.png", 64)
    with pytest.raises(DataError, match="leave out --invert-sketch"):
        read_sketch(tmp_path / "lines.png", 64, inverted=True)
    with pytest.raises(DataError, match="100% mid-greys"):
        read_sketch(tmp_path / "photo.png", 64)


def test_objects_are_painted_in_greys(tmp_path: Path) -> None:
    painted = np.zeros((32, 32), np.uint8)
    painted[4:12, 4:12], painted[10:20, 10:20] = 80, 200
    Image.fromarray(painted).save(tmp_path / "a.png")
    first, second = read_objects(tmp_path / "a.png", 32)
    assert (first == (painted == 80)).all() and (second == (painted == 200)).all()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="found 0; paint"):
        read_objects(tmp_path / "b.png", 32)


def test_a_folder_is_read_with_captions_and_what_users_know_better(tmp_path: Path) -> None:
    image = training_scene((1,), 32).image
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a thing")
    data = ConditionedPictures(str(tmp_path))
    before = data.digest
    save_conditions(Conditions(32, {"depth": np.full((1, 32, 32), 9, np.uint8)}), tmp_path / "a.conditions")
    (name, read, found), data = next(iter(data.read(32))), ConditionedPictures(str(tmp_path))
    assert (name, found.values["caption"], len(data)) == ("a", "a thing", 1) and (read == image).all()
    assert (found.values["depth"] == 9).all() and data.digest != before
    assert next(iter(ConditionedPictures(str(tmp_path / "a.png")).read(32)))[2].values["caption"] == "a thing"
    with pytest.raises(DataError, match="number of scenes"):
        len(ConditionedPictures("emoji-scenes:none"))


def test_edges_are_the_largest_of_three_channels() -> None:
    ramp = np.broadcast_to(np.arange(8.0) * 5, (8, 8))
    one, three = (np.stack([ramp, ramp * share, ramp * share], -1) for share in (0, 1))
    assert (edges(one) == edges(three)).all() and 0 < edges(one)[0, 4, 4] < 255


def test_later_objects_lie_over_earlier_ones() -> None:
    below, above = np.ones((4, 4), bool), np.eye(4, dtype=bool)
    assert (depth([below, above])[0] == np.where(above, 128, 64)).all()
    assert (instances([below, above])[0] == np.where(above, 128, 64)).all()
