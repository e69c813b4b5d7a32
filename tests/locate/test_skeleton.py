"""The Map of a skeleton: one pixel wide, inside its shape, a component each, and what the provenance says of it."""

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.silhouettes import Silhouettes
from photopic.data.skeletons import distances, medial, thin
from photopic.locate.skeleton import SkeletonConfig, skeleton
from photopic.models.skeleton_network import SkeletonNetwork
from photopic.models.skeleton_unet import SkeletonUNet


def two() -> np.ndarray:
    """A bar with a bump beside a ring."""
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 5:14, 4:34] = mask[0, 3:5, 20] = True
    radius = np.hypot(*(np.mgrid[:40, :60] - np.array([27, 42])[:, None, None]))
    mask[0] |= (radius < 11) & (radius > 5)
    return mask


@pytest.mark.parametrize("method", ["thin", "medial", "network"])
def test_all_maps_are_zero_outside_the_shape(method: str) -> None:
    torch.manual_seed(0)
    model = SkeletonNetwork(SkeletonUNet(2, (4, 4)), 0.4) if method == "network" else None
    found = skeleton(Silhouettes.of(two()), model=model, config=SkeletonConfig(method=method))
    assert not found.values.transpose(0, 2, 3, 1)[~two()].any()
    assert found.labels == ("skeleton", "radius", *(("probability",) if method == "network" else ()))
    assert set(np.unique(found.values[:, 0])) == {0, 1}


def test_each_component_has_a_skeleton_and_a_hole_a_loop() -> None:
    found = skeleton(Silhouettes.of(two()), config=SkeletonConfig(prune=1.2))
    row = found.provenance["pictures"][0]
    assert (row["shapes"], row["components"], row["loops"]) == (2, 2, 1)
    assert row["read_as"] == "True" and "note" not in row


def test_maps_are_thinning_the_medial_axis_and_the_distance_transform() -> None:
    mask = two()
    for method, peer in (("thin", thin), ("medial", medial)):
        values = skeleton(Silhouettes.of(mask), config=SkeletonConfig(method=method)).values[0]
        assert np.array_equal(values[0] > 0, peer(mask[0]))
        assert np.allclose(values[1], np.where(peer(mask[0]), distances(mask[0]), 0))


def test_smoothing_and_pruning_drop_the_branch_of_a_bump() -> None:
    ends = {
        (smooth, prune): skeleton(Silhouettes.of(two()), config=SkeletonConfig(smooth=smooth, prune=prune)).provenance[
            "pictures"
        ][0]["ends"]
        for smooth, prune in ((0, 0.0), (3, 0.0), (0, 1.7))
    }
    assert ends[0, 0.0] > 2 == ends[3, 0.0] == ends[0, 1.7]


def test_a_line_is_said_to_be_one_already() -> None:
    line = np.zeros((1, 20, 20), bool)
    line[0, 10, 3:17] = True
    found = skeleton(Silhouettes.of(line))
    assert "a line already" in found.provenance["pictures"][0]["note"]
    assert np.array_equal(found.values[0, 0] > 0, line[0])


def test_the_network_alone_takes_a_model_and_a_shape_has_to_stay() -> None:
    model = SkeletonNetwork(SkeletonUNet(2, (4, 4)))
    with pytest.raises(DataError, match="--model: is for the method network"):
        skeleton(Silhouettes.of(two()), model=model)
    line = np.zeros((1, 20, 20), bool)
    line[0, 10] = True
    with pytest.raises(DataError, match="0: expected a shape, found none that stays under --smooth 5"):
        skeleton(Silhouettes.of(line), config=SkeletonConfig(smooth=5))
