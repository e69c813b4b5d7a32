"""How a layout is obeyed: the attention mass is a share of area or cells, and boxes are those of real scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.layout import Layout, Region
from photopic.data.scenes import Background, Placement, compose
from photopic.metrics.layout import attention_mass, box_iou, foreground, subject_boxes
from photopic.metrics.oracle import Oracle

PAIRS = (("rose", "penguin"), ("guitar", "bear"), ("banana", "owl"))
SPOTS = (((0.26, 0.3), (0.74, 0.7)), ((0.7, 0.28), (0.3, 0.74)), ((0.28, 0.5), (0.75, 0.4)))


def test_mass_is_the_share_of_attention_in_the_region() -> None:
    layout = Layout((Region("cat", (0.0, 0.0, 0.375, 1.0)), Region("dog", (0.5, 0.0, 1.0, 1.0))))
    even = torch.ones(2, 4, 4)
    assert attention_mass(even, layout, by_area=True) == pytest.approx([0.375, 0.5])
    assert attention_mass(even, layout) == pytest.approx([0.5, 0.5])  # the half cell is the cat's
    inside = torch.from_numpy(layout.cells(4, 4)).float()
    assert attention_mass(inside, layout) == pytest.approx([1.0, 1.0])
    assert attention_mass(1 - inside, layout) == pytest.approx([0.0, 0.0])
    assert np.isnan(attention_mass(torch.zeros(2, 4, 4), layout)).all()
    with pytest.raises(DataError, match="one map for each of 2 regions, found 3"):
        attention_mass(torch.ones(3, 4, 4), layout)


def test_iou_of_boxes_that_are_equal_apart_nested_and_absent() -> None:
    box = np.array([0.0, 0.0, 0.5, 0.5])
    others = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [np.nan] * 4])
    assert box_iou(np.tile(box, (4, 1)), others) == pytest.approx([1.0, 0.0, 0.25, 0.0])


def scenes() -> tuple[np.ndarray, list[tuple[str, str]], np.ndarray]:
    drawn = [
        (compose([Placement(n, "noto", s, 0.44) for n, s in zip(names, spots, strict=True)], Background("teal")), names)
        for names, spots in zip(PAIRS, SPOTS, strict=True)
    ]
    images = np.stack([scene.image for scene, _ in drawn])
    return images, [names for _, names in drawn], np.stack([scene.boxes / 64 for scene, _ in drawn])


def test_boxes_of_real_scenes_are_found() -> None:
    oracle = Oracle.load()
    images, pairs, boxes = scenes()
    for image, names, true in zip(images, pairs, boxes, strict=True):
        found = subject_boxes(image[None], names, oracle)[0]
        assert (box_iou(found, true) > 0.8).all(), (names, found, true)
        assert box_iou(found, true[::-1]).max() < 0.2
    assert np.isnan(subject_boxes(images[:1], ["broccoli"], oracle)).all()  # it is not there


def test_the_foreground_is_what_differs_from_a_flat_background() -> None:
    images, _, _ = scenes()
    noise = np.random.default_rng(0).integers(-8, 9, images.shape)
    objects = foreground((images.astype(int) + noise).clip(0, 255).astype(np.uint8))
    assert 0.1 < objects.mean() < 0.4 and not objects[:, :2].any()
