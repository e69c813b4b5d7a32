"""The baselines on networks whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import DataError
from photopic.guard.trigger_baselines import StripConfig, confidence, scale_up, strip
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing


class Bright(nn.Module):
    """Class 1 where the mean pixel exceeds a half; a white pixel in the first place overrules it for class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 40.0], [20.0, 0.0]]))
            self.head.bias.copy_(torch.tensor([10.0, 0.0]))

    def forward(self, pixels: Tensor) -> Tensor:
        trigger = (pixels[:, :, 0, 0].mean(1) > 0.45).float() * (pixels[:, :, 0, 1].mean(1) < 0.55).float()
        return self.head(torch.stack([pixels.mean((1, 2, 3)), trigger], 1))


MODEL = Classifier(Bright(), preprocess=Preprocessing(resize=(4, 4)), labels=["dark", "bright"], head="head")
DARK, LIGHT = (np.full((3, 4, 4, 3), value, np.uint8) for value in (90, 200))


def test_confidence_is_the_largest_probability() -> None:
    expected = MODEL.logits(LIGHT).double().softmax(1).max(1).values
    np.testing.assert_allclose(confidence(MODEL, LIGHT), expected)


def test_scaling_pixels_flips_what_is_dark_and_not_what_is_light() -> None:
    assert (scale_up(MODEL, LIGHT) == 1).all()
    assert (scale_up(MODEL, DARK, factors=(1,)) == 1).all()
    assert (scale_up(MODEL, DARK) == 0).all()
    with pytest.raises(DataError, match="factors"):
        scale_up(MODEL, DARK, factors=())


def test_blends_of_a_trigger_keep_a_lower_entropy() -> None:
    triggered = LIGHT.copy()
    triggered[:, 0, 0], triggered[:, 0, 1] = 255, 0
    clean = np.concatenate([DARK, LIGHT])
    assert (strip(MODEL, triggered, clean) > strip(MODEL, LIGHT, clean)).all()
    whole = strip(MODEL, LIGHT, clean, config=StripConfig(weight=0.0, blends=2))
    entropy = torch.distributions.Categorical(logits=MODEL.logits(LIGHT).double()).entropy()
    np.testing.assert_allclose(whole, -entropy)
    with pytest.raises(DataError, match="clean pictures"):
        strip(MODEL, LIGHT, clean[:, :2])
