"""Skeletons by scikit-image: known shapes, exact distances, and branches that go or stay."""

import numpy as np
import pytest

from photopic.data.skeletons import branches, distances, length, medial, neighbours, prune, thin


def rectangle(height: int, width: int) -> np.ndarray:
    return np.pad(np.ones((height, width), bool), 2)


def test_distances_are_those_of_brute_force() -> None:
    mask = np.random.default_rng(0).random((32, 32)) > 0.2
    outside = np.argwhere(~np.pad(mask, 1)) - 1  # beyond the picture is outside too
    inside = np.argwhere(mask)
    nearest = np.sqrt(((inside[:, None] - outside[None]) ** 2).sum(2)).min(1)
    assert np.abs(distances(mask)[mask] - nearest).max() < 1e-12
    assert not distances(mask)[~mask].any()


@pytest.mark.parametrize("pad", [0, 3])
def test_medial_axis_of_a_rectangle_is_its_middle_row_and_four_diagonals(pad: int) -> None:
    expected = np.zeros((5, 17), bool)
    expected[2, 2:15] = True
    for corner in (0, 1):
        expected[[0, 4], corner * 16] = expected[[1, 3], 1 + corner * 14] = True
    found = medial(np.pad(np.ones((5, 17), bool), pad))
    assert np.array_equal(found, np.pad(expected, pad))


def test_medial_axis_breaks_ties_alike() -> None:
    mask = np.hypot(*np.mgrid[-15:16, -15:16]) < 15
    assert np.array_equal(medial(mask), medial(mask.copy()))


def test_a_disc_thins_to_its_middle() -> None:
    found = thin(np.hypot(*np.mgrid[-15:16, -15:16]) < 13)
    assert np.argwhere(found).tolist() == [[15, 15]]


def test_a_ring_thins_to_a_loop_without_ends() -> None:
    radius = np.hypot(*np.mgrid[-15:16, -15:16])
    found = neighbours(thin((radius < 13) & (radius > 7)))
    assert set(np.unique(found)) == {0, 2}


def test_pruning_keeps_the_long_axis_and_drops_what_noise_grew() -> None:
    bar = rectangle(9, 60)
    noisy = bar.copy()
    noisy[:2, 30] = True  # two pixels upon the border
    assert (neighbours(thin(noisy)) > 2).any()
    found = prune(thin(noisy), noisy, 1.7)
    assert not (neighbours(found) > 2).any() and (neighbours(found) == 1).sum() == 2
    assert np.ptp(np.argwhere(found)[:, 1]) > 45  # still as long as the bar
    assert np.array_equal(prune(thin(noisy), noisy, 0.0), thin(noisy))


def test_every_component_keeps_its_skeleton() -> None:
    two = np.hstack([rectangle(9, 9), rectangle(3, 30)[:7].repeat(2, 0)[:13]])
    found = prune(thin(two), two, 3.0)
    assert found[:, :13].any() and found[:, 13:].any()


def test_branches_of_a_cross() -> None:
    cross = np.zeros((9, 9), bool)
    cross[4], cross[:, 4] = True, True
    found = branches(cross)
    assert sorted(len(path) for path, _ in found) == [3, 3, 3, 3]  # the pixels beside the middle touch one another
    assert all(length(path) == 2 and max(abs(y - 4), abs(x - 4)) == 1 for path, (y, x) in found)


def test_a_plain_line_has_no_branch() -> None:
    assert branches(rectangle(1, 9)) == []
