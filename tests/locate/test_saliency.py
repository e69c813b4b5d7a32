"""The saliency report: maps are those of the methods, each for the class asked for, a good map wins, bad input is a line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError, ModelError
from photopic.data.class_folder import load_classes
from photopic.locate.attribution.normgrad import NormGradConfig, normgrad
from photopic.locate.saliency import SaliencyConfig, asked_classes, checked_masks, saliency
from photopic.models.classifier import Classifier
from tests.cli.conftest import run
from tests.locate.attribution.test_grad_cam import RED_AND_BLUE, by_hand
from tests.tiny_classifiers import CLASSES, class_folder, tiny_class_folder, tiny_classifier

CONFIG = SaliencyConfig(methods=("grad-cam",), randomised=2, shown=2)


def spots() -> tuple[np.ndarray, np.ndarray]:
    """Black pictures with a red and a blue square far apart, and where the red one is."""
    pictures, masks = np.zeros((4, 24, 24, 3), np.uint8), np.zeros((4, 24, 24), bool)
    for number, (row, column) in enumerate([(2, 2), (2, 16), (16, 2), (16, 16)]):
        masks[number, row : row + 6, column : column + 6] = True
        pictures[number][masks[number]] = 255, 0, 0
        pictures[number][masks[number][::-1, ::-1]] = 0, 0, 255
    return pictures, masks


@pytest.fixture
def model() -> Classifier:
    """Red raises one logit and blue the other."""
    return by_hand([[40.0, 0.0], [0.0, 40.0]], RED_AND_BLUE)


def test_a_map_of_the_object_beats_the_middle_and_chance(model: Classifier) -> None:
    pictures, masks = spots()
    report = saliency(model, pictures, masks=masks, classes=["red"], config=CONFIG)
    found = {row["method"]: row for row in report.rows}
    assert found["grad-cam"]["pointing"][0] == 1.0 and found["grad-cam"]["energy"][0] > 0.99
    assert found["centre"]["pointing"][0] == 0.0 and found["random"]["energy"][0] < 0.2
    for kind, better in (("deletion", -1), ("insertion", 1)):
        assert better * (found["grad-cam"][kind][0] - found["random"][kind][0]) > 0.02
    other = saliency(model, pictures, masks=masks[:, ::-1, ::-1], classes=["blue"] * 4, config=CONFIG)
    assert other.rows[0]["pointing"][0] == 1.0  # the same pictures, the other class
    wrong = saliency(model, pictures, masks=masks, classes=["blue"], config=CONFIG)
    assert wrong.rows[0]["pointing"][0] == 0.0


def test_each_picture_is_asked_for_its_own_class() -> None:
    model, folder = tiny_classifier(), tiny_class_folder()
    asked = asked_classes(model, folder, None)
    assert asked == [name for name in sorted(CLASSES) for _ in range(5)]
    report: Any = saliency(model, folder, config=replace(CONFIG, methods=("normgrad",), centred=True, shown=20))
    maps = report.maps["normgrad"]
    for number in (0, 7, 19):
        alone = normgrad(model, [folder[number]], classes=[asked[number]], config=NormGradConfig(centred=True))
        np.testing.assert_allclose(maps.values[number, 0], alone.values[0, 0], atol=1e-6)
        np.testing.assert_array_equal(maps.images[number], alone.images[0])  # type: ignore[index]
    assert len(report.rows[0]["randomised"]) == len(report.values["parts"]) == len(model.blocks) + 1
    assert report.rows[0]["pointing"] is None and report.values["masked"] is False


def test_what_is_wrong_is_said_in_a_line(model: Classifier, tmp_path: Path) -> None:
    pictures, masks = spots()
    with pytest.raises(DataError, match=r"--class: expected one, or one for each of 4 pictures, found 2"):
        saliency(model, pictures, classes=["red", "blue"])
    with pytest.raises(ModelError, match="no class 'green'"):
        saliency(model, pictures, classes=["green"])
    with pytest.raises(DataError, match=r"--masks: expected one for each of 4 pictures, found 3"):
        saliency(model, pictures, masks=masks[:3])
    with pytest.raises(DataError, match=r"--masks: expected an object in each, found none in that of picture 1"):
        saliency(model, pictures, masks=masks * np.array([1, 0, 1, 1], bool)[:, None, None])
    images, others = (load_classes(class_folder(tmp_path / name, each=1)) for name in ("a", "b"))
    other = tmp_path / "b" / "mug" / "other.png"
    (tmp_path / "b" / "mug" / "0.png").rename(other)
    with pytest.raises(DataError, match=r"--masks: expected 0 for the picture .*mug/0\.png, found .*other\.png"):
        checked_masks(load_classes(tmp_path / "b"), images)
    assert len(checked_masks(load_classes(tmp_path / "a"), images)) == len(others)


def test_the_command_writes_a_page_with_pictures_and_says_its_numbers(tmp_path: Path) -> None:
    for kind in ("pictures", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            Image.fromarray(np.full((32, 32, 3), 255 * (kind == "masks"), np.uint8)).save(
                tmp_path / kind / f"{number}.png"
            )
    found = run(
        "locate", "saliency", "emoji-resnet-64-0", str(tmp_path / "pictures"), "--masks", str(tmp_path / "masks"), "--class",
        "bear", "--centred", "--methods", "grad-cam,normgrad", "--randomised", "1", "-o", str(tmp_path / "x.html"), "--json",
    )  # fmt: skip
    said = json.loads(found.stdout)
    assert [row["method"] for row in said["rows"]] == ["grad-cam", "normgrad", "centre", "random"]
    assert said["rows"][1]["pointing"] == [1.0, 1.0, 1.0] and "maps" not in said
    written = (tmp_path / "x.html").read_text()
    assert written.count("<img") >= 6 and "Brightest pixels go" in written
