"""The probe of patches finds what is linear in them and nothing in noise; pixels of scenes have the class of what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from photopic.core.errors import DataError
from photopic.data.scene_classes import scenes_with_classes
from photopic.data.scenes import SceneOptions
from photopic.learning.patch_probe import fit_patch_probe

_, CLASSES = scenes_with_classes(60, SceneOptions(concepts=("bear", "pizza"), size=32), seed=0)
LABELS = torch.from_numpy(CLASSES)


def tokens(noise: float) -> torch.Tensor:
    """Shares of classes in the 8 x 8 patches, mixed into eight numbers, with noise."""
    draw = torch.Generator().manual_seed(0)
    shares = torch.nn.functional.avg_pool2d(torch.nn.functional.one_hot(LABELS, 3).movedim(3, 1).float(), 4)
    mixed = shares.flatten(2).mT @ torch.randn(3, 8, generator=draw)
    return mixed + noise * torch.randn(mixed.shape, generator=draw)


def overlap(said: np.ndarray, truth: np.ndarray) -> float:
    return float(jaccard_score(truth.ravel(), said.ravel(), average="macro"))


def test_it_finds_what_is_linear_and_nothing_in_noise() -> None:
    found = {}
    for noise in (0.01, 1e6):
        given = tokens(noise)
        probe = fit_patch_probe(given[:40], LABELS[:40], 3)
        found[noise] = overlap(probe.predict(given[40:], 32).numpy(), CLASSES[40:])
    assert found[0.01] > 0.8 and found[1e6] < 0.45


def test_the_loss_has_one_minimum() -> None:
    given = tokens(0.5)
    probe, moved = fit_patch_probe(given, LABELS, 3), fit_patch_probe(7 * given + 3, LABELS, 3)
    assert torch.allclose(probe.weight, moved.weight, atol=0.02)  # standardised: scale and shift do not matter


def test_pixels_show_the_things_that_are_drawn() -> None:
    assert set(np.unique(CLASSES)) == {0, 1, 2} and 0.2 < (CLASSES > 0).mean() < 0.7
    assert (CLASSES[:, 0, 0] == 0).mean() > 0.9


def test_a_grid_that_does_not_divide_the_picture_is_one_error() -> None:
    with pytest.raises(DataError, match="a square grid whose side divides 32 pixels, found 63 patches"):
        fit_patch_probe(torch.zeros(1, 63, 4), LABELS[:1], 3)
