"""The loop few-shot methods share: batches that depend on seed and step alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.data.few_shot import LabelledImages
from photopic.learning.few_shot_batches import Training, batch_at, drawn, epoch_of, epochs
from tests.tiny_encoders import tiny_dual_encoder

TRAINING = Training(steps=5, lr=1e-3, batch=4)


@pytest.fixture(scope="module")
def model():
    return tiny_dual_encoder("vit")


@pytest.fixture
def data() -> LabelledImages:
    images = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3)).astype(np.uint8)
    return LabelledImages(images, np.array([0, 0, 0, 1, 1, 1]), ("bear", "mug"))


def test_a_batch_follows_from_seed_and_step_alone(model, data) -> None:
    training = replace(TRAINING, flip=True)
    for step in (3, 0):
        first, again = (batch_at(model, data, training, step) for _ in range(2))
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert first[1].shape == (4, 3, 32, 32)
    assert not torch.equal(batch_at(model, data, replace(training, seed=1), 0)[1], first[1])


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
    for step in range(training.steps):
        index, pixels, labels = batch_at(model, data, training, step)
        assert index.tolist() == drawn(6, training, step).tolist()
        assert torch.equal(pixels, model.preprocess(data.images[index]))
        assert labels.tolist() == data.labels[index].tolist()


def test_crops_keep_half_of_a_picture_or_more(model) -> None:
    """Of a picture that is a ramp, what a crop shows spans at least the shorter side of the smallest crop."""
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    data = LabelledImages([ramp, ramp], np.array([0, 1]), ("bear", "mug"))
    spans = [
        float(pixels[..., -1].mean() - pixels[..., 0].mean())
        for _, pixels, _ in (batch_at(model, data, TRAINING, step) for step in range(12))
    ]
    assert min(spans) > 2 * 0.5 * 0.8  # pixel values span 2; sqrt(0.5 x 3/4) of the side is 0.61
    assert max(spans) < 2
    assert len(set(spans)) == 12
