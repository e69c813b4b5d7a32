"""Training marks skeletons and chooses its threshold by the mean over pictures."""

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.skeleton_pairs import SkeletonPairs
from photopic.learning.losses.skeleton import dice_loss, weighted_focal_loss
from photopic.models.skeleton_network import SkeletonNetwork
from photopic.models.skeleton_unet import SkeletonUNet
from photopic.train.skeleton import SkeletonConfig, SkeletonLearner, chosen, skeleton_network

SMALL = SkeletonConfig(steps=6, batch=4, widths=(4, 4), noise=0.1)


def bars(count: int = 8) -> SkeletonPairs:
    """Upright bars of five pixels, whose skeleton is the middle column."""
    shapes, skeletons = np.zeros((2, count, 16, 15), bool)
    for place in range(count):
        left = 1 + place % 8
        shapes[place, 2:14, left : left + 5] = skeletons[place, 4:12, left + 2] = True
    return SkeletonPairs(shapes, skeletons, tuple(map(str, range(count))))


def test_it_learns_where_the_middle_of_a_bar_is() -> None:
    model = skeleton_network(
        bars(), config=SkeletonConfig(steps=60, batch=8, widths=(8, 8), noise=0.0, lr=1e-2, flip=True)
    )
    found = model.probability(bars().shapes)
    on, beside = found[bars().skeletons].mean(), found[bars().shapes & ~bars().skeletons].mean()
    assert on > 0.5 > 2 * beside


def test_without_distance_and_context_it_has_neither() -> None:
    model = skeleton_network(
        bars(), config=SkeletonConfig(steps=1, batch=2, widths=(4, 4), distance=False, dilations=(0,))
    )
    assert model.network.config["inputs"] == 1
    assert not [name for name, _ in model.network.named_parameters() if "attention" in name]


def test_the_threshold_is_that_of_the_highest_mean_f1(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SkeletonNetwork(SkeletonUNet(1, (4, 4)))
    data = bars(3)
    made = np.where(data.skeletons, 0.42, np.where(data.shapes, 0.38, 0)).astype(np.float32)
    monkeypatch.setattr(SkeletonNetwork, "probability", lambda self, shapes: made)
    found = chosen(model, data, SkeletonConfig())
    assert found.threshold == 0.4 and found.provenance["validation_f1"] == 1.0


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="three pictures"):
        skeleton_network(bars(2), config=SMALL)


def test_a_step_weighs_three_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = SkeletonLearner(bars(), SkeletonConfig(steps=2, batch=4, widths=(4, 4, 4), noise=0.0))
    # a head's loss is how many times smaller it is
    monkeypatch.setattr(learner, "_loss", lambda logits, target: logits.sum() * 0 + target.shape[-1] / logits.shape[-1])
    assert learner.step(0)["loss"] == pytest.approx(0.5 * 1 + 0.3 * 2 + 0.2 * 4)


def test_the_loss_of_a_head_is_focal_and_dice_against_cells_that_hold_a_pixel() -> None:
    learner = SkeletonLearner(bars(), SkeletonConfig(widths=(4, 4), focal=7.0))
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 0, 1] = 1
    logits, cells = torch.tensor([[[[0.4, -1.0], [0.3, -2.0]]]]), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    expected = 7 * weighted_focal_loss(logits, cells, 0.9, 2.0) + dice_loss(logits.sigmoid(), cells)
    assert learner._loss(logits, target).item() == pytest.approx(expected.item())
