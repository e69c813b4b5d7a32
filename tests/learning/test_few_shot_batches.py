"""The loop few-shot methods share: batches that depend on seed and step alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.few_shot import LabelledImages
from photopic.learning.few_shot_batches import Training, batches, drawn, epoch_of, epochs
from tests.tiny_encoders import tiny_dual_encoder

TRAINING = Training(steps=5, lr=1e-3, batch=4)


@pytest.fixture(scope="module")
def model():
    return tiny_dual_encoder("vit")


@pytest.fixture
def data() -> LabelledImages:
    images = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3)).astype(np.uint8)
    return LabelledImages(images, np.array([0, 0, 0, 1, 1, 1]), ("bear", "mug"))


def test_a_loop_goes_on_with_the_batches_it_would_have_had(model, data) -> None:
    whole = list(batches(model, data, replace(TRAINING, flip=True)))
    rest = list(batches(model, data, replace(TRAINING, flip=True), start=3))
    assert [step for step, *_ in rest] == [3, 4]
    for (_, pixels, labels), (_, again, the_same) in zip(whole[3:], rest, strict=True):
        assert torch.equal(pixels, again)
        assert torch.equal(labels, the_same)
    assert whole[0][1].shape == (4, 3, 32, 32)
    assert not torch.equal(next(batches(model, data, replace(TRAINING, seed=1)))[1], whole[0][1])


def test_everything_is_seen_once_an_epoch_in_another_order() -> None:
    training = replace(TRAINING, steps=6, batch=4)
    seen = np.concatenate([drawn(6, training, step) for step in range(6)])
    for epoch in range(4):
        assert sorted(seen[6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert seen[:6].tolist() != seen[6:12].tolist()
    assert [epoch_of(6, training, step) for step in range(6)] == [0, 0, 1, 2, 2, 3]
    assert epochs(6, training) == 4
    assert len(drawn(3, training, 0)) == 3  # all there are


def test_pictures_are_as_they_are_without_augmentation(model, data) -> None:
    training = replace(TRAINING, augment=False)
    for step, pixels, labels in batches(model, data, training):
        index = drawn(6, training, step)
        assert torch.equal(pixels, model.preprocess(data.images[index]))
        assert labels.tolist() == data.labels[index].tolist()


def test_crops_keep_half_of_a_picture_or_more(model) -> None:
    """Of a picture that is a ramp, what a crop shows spans at least the shorter side of the smallest crop."""
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    data = LabelledImages([ramp, ramp], np.array([0, 1]), ("bear", "mug"))
    spans = [
        float(pixels[..., -1].mean() - pixels[..., 0].mean())
        for _, pixels, _ in batches(model, data, replace(TRAINING, steps=12))
    ]
    assert min(spans) > 2 * 0.5 * 0.8  # pixel values span 2; sqrt(0.5 x 3/4) of the side is 0.61
    assert max(spans) < 2
    assert len(set(spans)) == 12


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("batch", 0), ("seed", -1), ("lr", 0.0), ("lr", float("nan"))]
)
def test_a_loop_that_makes_no_sense_is_refused(field: str, value) -> None:
    with pytest.raises(DataError, match=field):
        replace(TRAINING, **{field: value})
