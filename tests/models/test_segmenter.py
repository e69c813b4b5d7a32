"""A segmenter of one's own: coarse logits are interpolated, classes and their shares come from them, and mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import DataError, ModelError
from photopic.models.preprocessing import Preprocessing
from photopic.models.segmenter import Segmenter

LABELS = ("dark", "light")


class Halves(nn.Module):
    """Logits of 2 x 2 blocks of pixels: minus and plus their mean brightness above the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> Any:
        light = self.scale * nn.functional.avg_pool2d(pixels.mean(1, keepdim=True) - 0.5, 2)
        return type("Output", (), {"logits": torch.cat([-light, light], 1)})()


def halves() -> Segmenter:
    return Segmenter(Halves(), preprocess=Preprocessing(), labels=LABELS, name="halves")


def pictures() -> np.ndarray:
    """The left half black, the right half white; and one that is white all over."""
    found = np.zeros((2, 8, 8, 3), np.uint8)
    found[0, :, 4:] = found[1] = 255
    return found


def test_every_pixel_gets_the_class_of_the_logits_interpolated_to_it() -> None:
    model, images = halves(), pictures()
    assert np.array_equal(model.segment(images), images[..., 0] // 255)
    assert np.array_equal(model.segment(images[0]), model.segment(images, batch=1)[:1])
    logits = model.forward(model.preprocess(images))
    assert logits.shape == (2, 2, 8, 8)
    across = torch.tensor([-0.5, -0.5, -0.5, -0.25, 0.25, 0.5, 0.5, 0.5])  # bilinear, between blocks of two
    torch.testing.assert_close(logits[0, 1], across.expand(8, 8))


def test_shares_of_classes_are_mean_probabilities_whatever_the_batch() -> None:
    model, images = halves(), pictures()
    expected = model.forward(model.preprocess(images)).softmax(1).mean((0, 2, 3)).numpy()
    for batch in (1, 2):
        np.testing.assert_allclose(model.class_ratio(images, batch=batch), expected, rtol=1e-6)
    assert expected[1] > expected[0]


def test_edits_reach_it_and_provenance_is_kept_beside_what_is_stamped() -> None:
    model = halves()
    assert list(model.components) == ["network"] and model.digest() == halves().digest()
    first = model.stamped({"method": "a"})
    assert first.stamped({"method": "b", "seed": 1}).provenance == {"method": "a", "seed": 1}
    assert first.network is model.network and model.provenance == {}


def test_other_outputs_no_pictures_and_folders_for_modules_of_ones_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected logits of shape \(1, 3, rows, columns\), found \(1, 2, 4, 4\)"):
        Segmenter(Halves(), preprocess=Preprocessing(), labels=("a", "b", "c")).segment(pictures()[0])
    with pytest.raises(DataError, match="expected at least one, found none"):
        halves().segment(pictures()[:0])
    with pytest.raises(ModelError, match="halves"):
        halves().save(tmp_path / "x")
    broken = Halves()
    broken.scale.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="scale"):
        Segmenter(broken, preprocess=Preprocessing(), labels=LABELS)
