"""The score of folders: the challenge's rules with its flag, errors without."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.class_folder import load_classes
from photopic.data.skeleton_pairs import SkeletonPairs, emoji_pairs
from photopic.measure.skeleton import SkeletonScoreConfig, skeleton_score

EXACT = SkeletonScoreConfig(skelneton=True)


@pytest.fixture
def truth() -> SkeletonPairs:
    pairs = emoji_pairs(3, size=80)
    return SkeletonPairs(pairs.shapes, pairs.skeletons, ("a", "b", "c"))


def written(folder: Path, masks: np.ndarray, colour: tuple[int, int, int]) -> Path:
    for name, mask in zip("abc", masks, strict=False):
        Image.fromarray(np.where(mask[..., None], np.uint8(colour), np.uint8(0))).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(("colour", "config"), [((255, 255, 255), SkeletonScoreConfig()), ((0, 0, 255), EXACT)])
def test_the_truth_itself_has_one(
    tmp_path: Path, truth: SkeletonPairs, colour: tuple, config: SkeletonScoreConfig
) -> None:
    found = skeleton_score(load_classes(written(tmp_path, truth.skeletons, colour)), truth, config=config)
    assert found.values["f1"] == found.values["f1_within_1"] == 1 and "zero_because" not in found.values
    assert all(row["ends"] == row["ends_true"] and row["outside"] == 0 for row in found.rows)


def test_almost_blue_is_not_blue(tmp_path: Path, truth: SkeletonPairs) -> None:
    found = skeleton_score(load_classes(written(tmp_path, truth.skeletons, (0, 0, 254))), truth, config=EXACT)
    assert found.values["f1"] == 0


def test_a_missing_picture_makes_the_whole_score_zero_or_is_an_error(tmp_path: Path, truth: SkeletonPairs) -> None:
    folder = load_classes(written(tmp_path, truth.skeletons[:2], (0, 0, 255)))
    found = skeleton_score(folder, truth, config=EXACT)
    assert found.values["f1"] == 0 and "c: expected a skeleton" in found.values["zero_because"]
    with pytest.raises(DataError, match="c: expected a skeleton of 80 x 80 pixels, found none"):
        skeleton_score(folder, truth)


def test_small_pictures_score_zero_by_the_challenges_rule(tmp_path: Path) -> None:
    pairs = emoji_pairs(1, size=64)
    small = SkeletonPairs(pairs.shapes, pairs.skeletons, ("a",))
    folder = load_classes(written(tmp_path, small.skeletons, (0, 0, 255)))
    assert skeleton_score(folder, small, config=EXACT).values["zero_because"] == "pictures of 64 pixels or fewer"
