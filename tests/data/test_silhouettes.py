"""What is taken for inside is told or refused; pairs come from folders, the challenge's own and labels among them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.emoji_world import HELD_OUT_STYLE, concept
from photopic.data.silhouettes import ALPHA, DARK, LIGHT, SilhouetteOptions, read_silhouettes
from photopic.data.skeleton_pairs import PairOptions, emoji_pairs, noisy_boundary, read_pairs, silhouette
from photopic.data.skeletons import distances, prune, thin

BAR = np.zeros((20, 30), bool)
BAR[5:14, 4:26] = True


def written(folder: Path, name: str, mask: np.ndarray, mode: str = "L") -> Path:
    grey = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    image = Image.merge("RGBA", [grey.point(lambda _: 200)] * 3 + [grey]) if mode == "RGBA" else grey.convert(mode)
    folder.mkdir(exist_ok=True)
    image.save(folder / name)
    return folder / name


def read(path: Path, **options: object) -> tuple[np.ndarray, str]:
    found = read_silhouettes(str(path), SilhouetteOptions(**options))
    return found.masks[0], found.read_as[0]


@pytest.mark.parametrize(("mode", "rule"), [("L", LIGHT), ("RGB", LIGHT), ("1", LIGHT), ("RGBA", ALPHA)])
def test_masks_and_cut_outs_are_read_alike(tmp_path: Path, mode: str, rule: str) -> None:
    mask, how = read(written(tmp_path, "a.png", BAR, mode))
    assert how == rule and mask.shape == (30, 30)  # in the middle of a square
    assert np.array_equal(mask[5:25], BAR) and not mask[:5].any() and not mask[25:].any()


def test_dark_is_the_inverse_of_light(tmp_path: Path) -> None:
    mask, how = read(written(tmp_path, "a.png", ~BAR), inside="dark")
    assert how == DARK and np.array_equal(mask[5:25], BAR)


def test_a_picture_is_scaled_to_the_size_asked_for(tmp_path: Path) -> None:
    mask, _ = read(written(tmp_path, "a.png", BAR), size=60)
    assert mask.shape == (60, 60) and abs(mask.sum() / BAR.sum() - 4) < 0.3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--inside light or dark"),
        ({"inside": "alpha"}, "with transparency, found none"),
        ({"inside": "light"}, "nothing inside"),
    ],
)
def test_a_colour_picture_is_refused_unless_it_is_said_what_is_inside(
    tmp_path: Path, options: dict, words: str
) -> None:
    Image.new("RGB", (20, 20), (90, 40, 60)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=words):
        read(tmp_path / "a.png", **options)


@pytest.mark.parametrize("everything", [True, False])
def test_an_empty_and_a_full_picture_are_refused(tmp_path: Path, everything: bool) -> None:
    written(tmp_path, "a.png", np.full((20, 20), everything))
    with pytest.raises(
        DataError, match=r"a\.png: expected a shape .*, found " + ("everything" if everything else "nothing")
    ):
        read(tmp_path / "a.png")


def test_emoji_pairs_keep_to_their_split_and_style() -> None:
    pairs = emoji_pairs(6, split="held_out", styles=(HELD_OUT_STYLE,))
    assert {each.partition("/")[2] for each in pairs.names} == {HELD_OUT_STYLE}
    assert {concept(each.partition("/")[0]).split for each in pairs.names} == {"held_out"}
    for shape, skeleton in zip(pairs.shapes, pairs.skeletons, strict=True):
        assert np.array_equal(prune(thin(shape), shape), skeleton) and not (skeleton & ~shape).any()


def test_noise_turns_over_a_share_of_both_sides_of_the_border_alone() -> None:
    shape = silhouette("bear", "noto")
    assert shape is not None
    rng = np.random.default_rng(0)
    changed = shape ^ noisy_boundary(shape, 1.0, rng)
    assert (changed & shape).any() and (changed & ~shape).any()
    depth = np.abs(np.argwhere(changed)[:, None] - np.argwhere(shape)[None]).sum(2).min(1)
    assert depth.max() == 1  # outside, beside a pixel inside
    assert (distances(shape)[changed & shape] == 1).all()  # inside, beside a pixel outside
    share = np.mean([(shape ^ noisy_boundary(shape, 0.2, rng)).sum() for _ in range(40)]) / changed.sum()
    assert abs(share - 0.2) < 0.02


@pytest.mark.parametrize("names", [("shapes", "skeletons"), ("img_train_shape", "img_train2")])
def test_folders_of_pairs_are_read(tmp_path: Path, names: tuple[str, str]) -> None:
    written(tmp_path / names[0], "a.png", BAR), written(tmp_path / names[1], "a.png", thin(BAR))
    pairs = read_pairs(str(tmp_path), PairOptions())
    assert (
        np.array_equal(pairs.shapes[0], BAR) and np.array_equal(pairs.skeletons[0], thin(BAR)) and pairs.names == ("a",)
    )
    written(tmp_path / names[0], "b.png", BAR)
    with pytest.raises(DataError, match=r"a skeleton for b\.png"):
        read_pairs(str(tmp_path), PairOptions())
    written(tmp_path / names[1], "b.png", BAR[1:])
    with pytest.raises(DataError, match=r"30 x 20 pixels as a\.png, found 30 x 19"):
        read_pairs(str(tmp_path), PairOptions())


def test_of_a_label_exact_blue_is_skeleton_and_that_or_exact_white_the_shape(tmp_path: Path) -> None:
    label = np.zeros((20, 30, 3), np.uint8)
    label[BAR] = 255
    label[thin(BAR)] = (0, 0, 255)
    label[0, :3] = (0, 0, 254), (254, 255, 255), (0, 255, 255)  # neither
    Image.fromarray(label).save(tmp_path / "a.png")
    pairs = read_pairs(str(tmp_path), PairOptions())
    assert np.array_equal(pairs.shapes[0], BAR) and np.array_equal(pairs.skeletons[0], thin(BAR))


@pytest.mark.parametrize("word", ["emoji-silhouettes:0", "emoji-silhouettes:many"])
def test_a_number_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(DataError, match="emoji-silhouettes:500"):
        read_pairs(word, PairOptions())
