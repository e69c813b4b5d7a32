"""Depth of any picture: what lies over something is nearer, a given depth stays, any size will do."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.data.conditions import Conditions
from photopic.data.scenes import Background, Placement, compose
from photopic.models.depth_network import SOURCE, predicted_depth, with_depth


@pytest.mark.parametrize("size", [64, 100])
def test_things_are_nearer_than_the_ground(size: int) -> None:
    scene = compose([Placement("bear", "noto", (0.5, 0.5), 0.6)], Background("blue"), size=size)
    found = predicted_depth(scene.image)
    assert found.shape == (1, size, size) and found.dtype == np.uint8
    assert found[0][scene.masks[0]].mean() > 60 > 15 > found[0][:6].mean()


def test_what_lies_over_something_is_nearer() -> None:
    pairs = [("bear", "cat"), ("red apple", "bear"), ("cat", "rocket"), ("rocket", "red apple")]
    right = 0
    for below, above in pairs:
        items = [Placement(below, "noto", (0.4, 0.45), 0.6), Placement(above, "noto", (0.6, 0.6), 0.5)]
        scene = compose(items, Background("yellow"))
        far, near = (predicted_depth(scene.image)[0][mask].mean() for mask in scene.masks)
        right += near > far
    assert right >= 3


def test_a_depth_that_is_known_stays() -> None:
    image, known = np.zeros((32, 32, 3), np.uint8), np.full((1, 32, 32), 7, np.uint8)
    found = Conditions(32, {"depth": known}, {"depth": "given"})
    assert with_depth(found, image) is found
    made = with_depth(Conditions(32, {}), image)
    assert made.names == ("depth",) and made.sources["depth"] == SOURCE
