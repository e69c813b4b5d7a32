"""The palette: its 156 colours, its smoothing, and the fast way to a histogram against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from photopic.data.palette import BINS, FLOOR, colours, colours_lab, nearest_colours, palette, smoothing
from photopic.data.scenes import SceneOptions, sample_scene

STORED = {  # number of a colour: CIELab values that are published for it (red, green, blue, white, black; D65)
    5: (53.24, 80.09, 67.20), 57: (87.73, -86.18, 83.18), 96: (32.30, 79.19, -107.86), 143: (100, 0, 0), 155: (0, 0, 0),
}  # fmt: skip


def test_there_are_156_colours_hue_by_hue_and_greys_last() -> None:
    assert colours().shape == (BINS, 3) == (156, 3)
    assert colours()[:5].tolist() == pytest.approx(np.array([[1, 1 - k / 6, 1 - k / 6] for k in range(1, 6)]))
    assert colours()[13 * 3 + 5].tolist() == pytest.approx([0.5, 1, 0])  # the fourth hue, a quarter turn, in full
    assert colours()[9].tolist() == pytest.approx([0.36, 0, 0]) and colours()[10].tolist() == pytest.approx(
        [0.84, 0.504, 0.504]
    )
    assert (np.diff(colours()[143:, 0]) < 0).all() and (colours()[143:] == colours()[143:, :1]).all()


@pytest.mark.parametrize("number", STORED)
def test_lab_values_are_the_stored_ones(number: int) -> None:
    assert colours_lab()[number] == pytest.approx(STORED[number], abs=0.35)  # hues are thousandths beside the primaries


def test_distances_and_smoothing_are_as_published_facts_say() -> None:
    apart = np.linalg.norm(colours_lab()[:, None] - colours_lab(), axis=-1) + np.diag(np.full(BINS, np.inf))
    assert apart.min() == pytest.approx(1.56, abs=0.01) and np.median(apart.min(1)) == pytest.approx(12.6, abs=0.05)
    assert smoothing().sum(1) == pytest.approx(1)
    diagonal, columns = np.diag(smoothing()), smoothing().sum(0)
    assert np.percentile(diagonal, [0, 50, 100]) == pytest.approx([0.20, 0.42, 0.81], abs=0.01)
    assert np.percentile(columns, [0, 50, 100]) == pytest.approx([0.845, 0.984, 1.249], abs=0.001)


@pytest.mark.parametrize("number", [0, 5, 40, 77, 130, 149])
def test_a_picture_of_one_palette_colour_gives_its_column(number: int) -> None:
    image = np.broadcast_to((colours()[number] * 255).round().astype(np.uint8), (4, 4, 3))
    column = smoothing()[:, number]
    assert palette(image) == pytest.approx(np.where(column < FLOOR, 0, column), abs=1e-7)


def test_the_fast_histogram_is_the_plain_one_and_needs_not_sum_to_1() -> None:
    sums = []
    for seed in range(8):
        image = sample_scene(SceneOptions(("cat", "bear", "rose"), size=48), seed).image
        apart = np.square(rgb2lab(image).reshape(-1, 1, 3) - colours_lab()).sum(-1)
        assert (nearest_colours(image) == np.bincount(apart.argmin(1), minlength=BINS)).all()
        sums.append(palette(image).sum())
    assert max(abs(each - 1) for each in sums) > 0.01


def test_scale_hardly_counts_and_another_background_does() -> None:
    def scene(size: int, colour: str) -> np.ndarray:
        from photopic.data.scenes import Background, Placement, compose

        return compose([Placement("cat", "noto", (0.5, 0.5), 0.6)], Background(colour), size=size).image

    small, large, other = palette(scene(64, "red")), palette(scene(128, "red")), palette(scene(64, "blue"))
    assert np.abs(small - large).sum() < 0.1 < 1 < np.abs(small - other).sum()
