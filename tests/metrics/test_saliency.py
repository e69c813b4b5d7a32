"""Measures of saliency maps: deletion and insertion of a network that reads one place, random weights part by part."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from photopic.metrics.saliency import SHARES, centre_prior, curves, energy, points, randomised, resized
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from tests.tiny_classifiers import tiny_classifier


class Corner(nn.Module):
    """Two logits: how bright the first of 10 x 10 pixels is, and half."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.head.weight.data, self.head.bias.data = torch.tensor([[8.0], [0.0]]), torch.tensor([0.0, 4.0])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(pixels[:, 0, :1, 0])


def test_the_class_goes_with_its_pixel_and_comes_with_it() -> None:
    model = Classifier(Corner(), preprocess=Preprocessing(), labels=["bright", "dark"])
    pixels = torch.zeros(1, 3, 10, 10)
    pixels[:, :, 0, 0] = 1.0  # the mean colour is 0.01
    order = -np.arange(100, dtype=np.float32).reshape(10, 10)  # the corner is the brightest of the map
    found = curves(model, pixels, 0, order)
    there, gone = (float(torch.tensor([8 * x - 4]).sigmoid()) for x in (1.0, 0.01))
    np.testing.assert_allclose(found["deletion"], [gone] * len(SHARES), atol=1e-6)
    np.testing.assert_allclose(found["insertion"], [there] * len(SHARES), atol=1e-6)
    last = curves(model, pixels, 0, -order)  # the corner is the last to go and to come
    np.testing.assert_allclose(last["deletion"], [there] * len(SHARES), atol=1e-6)
    np.testing.assert_allclose(last["insertion"], [gone] * len(SHARES), atol=1e-6)


def test_weights_are_drawn_anew_from_the_head_down_and_the_model_stays() -> None:
    model = tiny_classifier()
    before = {name: each.clone() for name, each in model.network.named_parameters()}
    changed = []
    for parts in range(1, len(model.blocks) + 2):
        other = dict(randomised(model, parts, 3).network.named_parameters())
        changed.append({name.partition(".")[0] for name, each in before.items() if not torch.equal(other[name], each)})
    assert changed[0] == {"5"} and changed[-1] == {"0", "5"}  # normalisations are all ones, without a spread
    assert all(small <= large for small, large in pairwise(changed))
    assert all(torch.equal(each, before[name]) for name, each in model.network.named_parameters())


def test_the_middle_points_at_what_is_in_the_middle() -> None:
    middle, corner = np.zeros((8, 12), bool), np.zeros((8, 12), bool)
    middle[3:5, 5:7], corner[0, 0] = True, True
    bump = np.stack([centre_prior((8, 12))] * 2)
    assert points(bump, np.stack([middle, corner])).tolist() == [1.0, 0.0]
    inside = energy(bump, np.stack([middle, corner]))
    assert inside[0] > 4 / 96 > inside[1]  # more than its share of a flat map, and less
    assert resized(bump, (4, 6)).shape == (2, 4, 6)
