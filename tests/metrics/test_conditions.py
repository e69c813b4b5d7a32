"""Errors of conditions: 0 for the picture itself, larger for another, and each of the measures alone."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.data.conditions import EIGHT, Conditions
from photopic.data.extraction import Embedded, from_picture, from_scene
from photopic.data.scenes import Background, Placement, compose
from photopic.metrics.conditions import condition_errors, line_f1, mean_iou

MEASURED = EIGHT[1:]  # words need a judge


def everything(concept: str, colour: str, vector: list[float]) -> tuple[np.ndarray, Conditions, Conditions]:
    scene = compose([Placement(concept, "noto", (0.5, 0.5), 0.7)], Background(colour))
    hidden, embedded = np.eye(64, dtype=bool), Embedded(np.array(vector, np.float16), "abc")
    return (
        scene.image,
        from_picture(scene.image, embedded=embedded),
        from_scene(scene, hidden=hidden, embedded=embedded),
    )


def test_a_picture_obeys_its_own_conditions_and_another_does_not() -> None:
    image, found, wanted = everything("bear", "white", [1, 0])
    own = condition_errors(found, wanted, image)
    assert tuple(own) == MEASURED and max(own.values()) < 0.2
    assert [own[name] for name in ("palette", "sketch", "intensity", "masked", "embedding")] == pytest.approx(
        [0] * 5, abs=1e-6
    )
    picture, other, _ = everything("anchor", "red", [0, 1])
    for name, error in condition_errors(other, wanted, picture).items():
        assert error > own[name] + 0.03, name


def test_lines_are_met_within_one_pixel() -> None:
    line = np.zeros((16, 16), bool)
    line[8] = True
    assert line_f1(line, np.roll(line, 1, 0)) == 1.0 and line_f1(line, np.roll(line, 2, 0)) == 0.0
    assert line_f1(line, np.zeros_like(line)) == 0.0 and line_f1(~line & line, np.zeros_like(line)) == 1.0


def test_objects_are_compared_by_the_best_part_of_each() -> None:
    wanted = np.array([[1, 1, 0, 2, 2]])
    assert mean_iou(wanted[:, ::-1], wanted) == 1.0
    assert mean_iou(np.array([[3, 3, 3, 3, 3]]), wanted) == pytest.approx(0.4)
    assert mean_iou(np.zeros((1, 5)), wanted) == 0.0


def test_sizes_and_encoders_have_to_be_one() -> None:
    image, found, _ = everything("bear", "white", [1, 0])
    with pytest.raises(DataError, match="one encoder"):
        condition_errors(found, Conditions(64, {"embedding": np.ones(2, np.float16)}, {}, "other"), image)
    with pytest.raises(DataError, match="one size"):
        condition_errors(found, Conditions(32, {}), image)
