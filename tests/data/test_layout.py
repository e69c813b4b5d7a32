"""Layouts: areas are exact, no grid loses a region, and what cannot be drawn is refused."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.data.layout import Layout, Region

LEFT, RIGHT = Region("cat", (0.0, 0.0, 0.5, 1.0)), Region("dog", (0.5, 0.0, 1.0, 1.0))
TINY = 1 / 1000  # side of a region far smaller than any cell


def painted(box: tuple[float, float, float, float], size: int = 48) -> np.ndarray:
    left, top, right, bottom = (round(edge * size) for edge in box)
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def dot(words: str, x: float, y: float) -> Region:
    return Region(words, (x, y, x + TINY, y + TINY))


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (5, 3), (8, 8), (100, 64)])
def test_coverage_is_the_exact_area_for_boxes_and_masks(grid: tuple[int, int]) -> None:
    box = (0.125, 0.25, 0.6875, 0.75)
    for region in (Region("cat", box), Region("cat", mask=painted(box))):
        cover = region.coverage(*grid)
        assert cover.shape == grid and cover.min() >= 0 and cover.max() <= 1 + 1e-9
        assert cover.mean() == pytest.approx((box[2] - box[0]) * (box[3] - box[1]))
    np.testing.assert_allclose(Region("cat", box).coverage(*grid), Region("cat", mask=painted(box)).coverage(*grid))


def test_bounds_of_a_mask_are_the_box_around_it() -> None:
    assert Region("cat", mask=painted((0.25, 0.5, 0.75, 1.0))).bounds == (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8, 12, 24, 64])
def test_a_region_smaller_than_a_cell_keeps_one_on_every_grid(side: int) -> None:
    layout = Layout((dot("cat", 0.43, 0.91),))
    (cells,) = layout.cells(side, side)
    assert cells.sum() == 1
    assert cells[int(0.9105 * side), int(0.4305 * side)]


def test_a_small_region_takes_its_cell_from_a_large_one() -> None:
    large = Region("dog", mask=~painted((0.5, 0.5, 0.55, 0.55), 40))
    layout = Layout((large, Region("bee", mask=painted((0.5, 0.5, 0.55, 0.55), 40))))
    dog, bee = layout.cells(4, 4)
    assert bee.sum() == 1 and bee[2, 2]
    assert dog.sum() == 15 and not (dog & bee).any()


def test_two_small_regions_in_one_cell_get_a_cell_each_where_they_touch_two() -> None:
    layout = Layout((Region("bee", (0.2, 0.1, 0.26, 0.2)), Region("ant", (0.1, 0.1, 0.15, 0.2))))
    bee, ant = layout.cells(4, 4)
    assert bee.sum() == ant.sum() == 1 and not (bee & ant).any()


def test_two_regions_that_would_share_their_only_cell_are_refused_and_named() -> None:
    layout = Layout((dot("bee", 0.1, 0.1), dot("ant", 0.12, 0.1)))
    assert layout.cells(64, 64).sum() == 2
    with pytest.raises(DataError, match=r"'ant' and 'bee' would share their only cell .* 4x4"):
        layout.cells(4, 4)


def test_neighbours_share_no_cell_even_where_their_border_halves_it() -> None:
    for side in (1, 2, 3, 5, 8):
        try:
            cells = Layout((LEFT, RIGHT)).cells(side, side)
        except DataError:
            assert side == 1
        else:
            assert (cells.sum(0) <= 1).all() and cells.any((1, 2)).all()


def test_overlap_is_refused_unless_allowed_and_then_shared() -> None:
    other = Region("dog", (0.25, 0.0, 0.75, 1.0))
    for pair in ((LEFT, other), (LEFT, Region("dog", mask=painted(other.bounds)))):
        with pytest.raises(DataError, match=r"'cat' and 'dog' overlap in 25\.0%"):
            Layout(pair)
        both = Layout(pair, may_overlap=True).cells(4, 4)
        assert both[:, :, 1].all() and not both[1, :, 0].any()
    Layout((LEFT, RIGHT))  # a common border is no overlap


@pytest.mark.parametrize(
    "box",
    [
        (-0.1, 0.0, 1.0, 1.0),
        (0.0, 0.0, 1.5, 1.0),
        (0.5, 0.0, 0.5, 1.0),
        (0.0, 0.7, 1.0, 0.2),
        (0.0, 0.0, float("nan"), 1.0),
    ],
)
def test_boxes_that_are_empty_or_leave_the_picture_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match=r"region 'cat'.*(empty|inside 0 to 1)"):
        Region("cat", box)  # type: ignore[arg-type]


def test_what_is_no_region_or_no_layout_is_refused() -> None:
    for made, reason in (
        (lambda: Region("cat"), "both or none"),
        (lambda: Region("cat", LEFT.box, painted((0.0, 0.0, 1.0, 1.0))), "both or none"),
        (lambda: Region(" ", LEFT.box), "without words"),
        (lambda: Region("cat", mask=np.zeros((4, 4), bool)), "mask is empty"),
        (lambda: Region("cat", LEFT.box, strength=-1.0), "strength of 0 or more"),
        (lambda: Layout(()), "no region"),
        (lambda: Layout((LEFT, Region("cat", RIGHT.box))), "'cat' has two regions"),
    ):
        with pytest.raises(DataError, match=reason):
            made()


def test_each_new_word_has_one_region_and_each_region_one_new_word() -> None:
    regions = (Region("<a> cat", LEFT.box), Region("<b> cat and <c>", RIGHT.box))
    layout = Layout(regions)
    assert layout.place_of(["<b>", "<a>"]) == [1, 0]
    with pytest.raises(DataError, match="<d> has no region; expected one region for each of 3 subjects"):
        layout.place_of(["<a>", "<b>", "<d>"])
    with pytest.raises(DataError, match="<b> and <c> are both subjects of the region '<b> cat and <c>'"):
        layout.place_of(["<a>", "<b>", "<c>"])


def test_the_preview_outlines_each_region_and_leaves_the_rest_of_the_picture() -> None:
    picture = np.full((64, 64, 3), 200, np.uint8)
    drawn = Layout((Region("cat", (0.0, 0.25, 0.5, 1.0)), Region("dog", (0.5, 0.5, 1.0, 1.0)))).preview(
        picture, scale=4
    )
    assert drawn.shape == (256, 256, 3) and (picture == 200).all()
    assert (drawn[64:, 0] != 200).any(-1).all() and (drawn[200, 255] != 200).any()  # left and right edges
    assert (drawn[:60] == 200).all()  # above both
    assert (drawn[70:130, 1] != drawn[255, 200]).any()  # another colour each
