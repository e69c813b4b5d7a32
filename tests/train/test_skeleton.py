"""Training marks skeletons and chooses its threshold by the mean over pictures."""

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.data.skeleton_pairs import SkeletonPairs
from photopic.models.skeleton_network import SkeletonNetwork
from photopic.models.skeleton_unet import SkeletonUNet
from photopic.train.skeleton import SkeletonConfig, chosen, skeleton_network

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
