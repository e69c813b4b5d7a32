"""The challenge's score on hand-made skeletons, and what is told beside it."""

import numpy as np

from photopic.data.skeletons import thin
from photopic.metrics.skeleton import balanced_accuracy, outline, skeleton_f1


def line(length: int, *, row: int = 4) -> np.ndarray:
    found = np.zeros((9, 40), bool)
    found[row, :length] = True
    return found


def test_identical_is_one_and_disjoint_or_empty_is_zero() -> None:
    some, other, empty = line(10), line(10, row=1), np.zeros((9, 40), bool)
    assert skeleton_f1(np.stack([some, some, empty, some]), np.stack([some, other, some, empty])).tolist() == [
        1,
        0,
        0,
        0,
    ]


def test_the_score_is_the_mean_over_pictures_and_not_over_pixels() -> None:
    truth, found = np.stack([line(2), line(8)]), np.stack([line(2, row=1), line(8)])
    assert skeleton_f1(found, truth).mean() == 0.5
    pooled = skeleton_f1(found.reshape(1, -1, 1), truth.reshape(1, -1, 1))[0]
    assert np.isclose(pooled, 0.8)


def test_f1_is_that_of_precision_and_recall() -> None:
    found, truth = line(30), line(12)
    assert np.isclose(skeleton_f1(found[None], truth[None])[0], 2 * (12 / 30) * 1 / (12 / 30 + 1))


def test_a_pixel_off_is_forgiven_within_the_radius_and_not_before() -> None:
    found, truth = line(20, row=6)[None], line(20)[None]
    assert [skeleton_f1(found, truth, radius)[0] for radius in (0, 1, 2)] == [0, 0, 1]


def test_balanced_accuracy_of_all_and_nothing_is_a_half() -> None:
    truth = line(20)[None]
    assert balanced_accuracy(np.ones_like(truth), truth)[0] == balanced_accuracy(np.zeros_like(truth), truth)[0] == 0.5


def test_outline_counts_components_ends_junctions_and_loops() -> None:
    found = np.zeros((20, 20), bool)
    found[2, 2:9] = found[2:9, 5] = True  # a T: three ends, one junction
    found[12:17, [12, 16]] = found[[12, 16], 12:17] = True  # a loop
    found = thin(found)  # without the corners' pixels
    seen = outline(found, found)
    assert [seen[name] for name in ("components", "ends", "junctions", "loops")] == [2, 3, 1, 1]
    assert seen["rebuilt"] == 1.0


def test_discs_rebuild_a_disc() -> None:
    disc = np.hypot(*np.mgrid[-15:16, -15:16]) < 12
    middle = np.zeros_like(disc)
    middle[15, 15] = True
    assert outline(middle, disc)["rebuilt"] > 0.95 and outline(~disc & middle, disc)["rebuilt"] == 0
