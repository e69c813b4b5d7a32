"""The transfer score: its three parts against examples of a hand's size, and no look at labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from photopic.core.errors import DataError
from photopic.measure.transfer_score import TransferScoreConfig, hopkins, information, nonuniformity, transfer_score
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    return Classifier(network, preprocess=Preprocessing(resize=(12, 12)), labels=["a", "b", "c", "d"])


def test_weights_at_the_corners_of_a_simplex_are_even_and_others_by_the_square_of_their_angle() -> None:
    simplex = torch.eye(4) - 0.25  # four vectors at arccos(-1/3)
    assert nonuniformity(3 * simplex) == pytest.approx(0, abs=1e-12)
    right = torch.eye(3)  # at 90 degrees where 120 are even
    assert nonuniformity(right) == pytest.approx((math.pi / 2 - math.acos(-1 / 2)) ** 2)


def test_sure_and_varied_predictions_inform_and_unsure_or_equal_ones_do_not() -> None:
    assert information(100 * torch.eye(4).repeat(3, 1)) == pytest.approx(1)
    assert information(torch.zeros(5, 4)) == pytest.approx(0)
    assert information(100 * torch.eye(4)[[2] * 6]) == pytest.approx(0)  # all of one class
    two = torch.tensor([[0.0, math.log(3.0)], [math.log(3.0), 0.0]])  # 1/4, 3/4 and the other way round
    expected = 1 - (-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2))
    assert information(two) == pytest.approx(expected)


def test_features_in_groups_come_near_one_and_evenly_spread_ones_near_a_half() -> None:
    rng = np.random.default_rng(5)  # not the seed of the draws
    spread = torch.from_numpy(rng.uniform(0, 1, (400, 2)))
    centres = rng.uniform(0, 1, (4, 2))
    groups = torch.from_numpy(centres[rng.integers(4, size=400)] + rng.normal(0, 1e-3, (400, 2)))
    given = {"share": 0.1, "draws": 10, "seed": 0}
    assert hopkins(spread, **given) == pytest.approx(0.5, abs=0.06)
    assert hopkins(groups, **given) > 0.95
    alone = [hopkins(spread, share=0.1, draws=1, seed=seed) for seed in range(20)]
    assert np.std(alone) > 2 * np.std([hopkins(spread, share=0.1, draws=10, seed=seed) for seed in range(20)])


def test_the_score_is_the_sum_of_its_parts_whatever_the_pictures_are_called(model: Classifier) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    found = transfer_score(model, pictures).values
    assert found["transfer_score"] == found["hopkins"] + found["information"] - found["nonuniformity"]
    assert found == transfer_score(model, pictures).values
    assert found["hopkins"] != transfer_score(model, pictures, config=TransferScoreConfig(seed=1)).values["hopkins"]
    assert found["information"] == pytest.approx(information(model.logits(pictures)))


def test_too_few_pictures_and_pictures_that_are_all_the_same_are_refused(model: Classifier) -> None:
    with pytest.raises(DataError, match="at least 20, found 9"):
        transfer_score(model, np.zeros((9, 12, 12, 3), np.uint8))
    with pytest.raises(DataError, match="the same features"):
        transfer_score(model, np.zeros((20, 12, 12, 3), np.uint8))
