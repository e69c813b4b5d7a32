"""The cases of the layout benchmark: prompt and boxes agree, the control is another case's layout of the same relation."""

from __future__ import annotations

from benchmarks.generate.layout import TINY, cases, shrunk
from photopic.data import scenes


def test_boxes_lie_on_the_sides_that_the_prompt_says() -> None:
    made = cases(16)
    assert cases(8) == made[:8] and {case.relation for case in made} == set(scenes.RELATIONS)
    for case in made:
        first, second = case.boxes
        axis = 0 if case.relation in ("left of", "right of") else 1
        low, high = (first, second) if case.relation in ("left of", "above") else (second, first)
        assert low[axis + 2] <= 0.5 <= high[axis]
        assert f" {case.relation} " in case.prompt and all(name in case.prompt for name in case.names)
        assert case.layout().cells(4, 4).any((1, 2)).all()
        assert made[(case.number + 4) % 16].relation == case.relation


def test_the_small_region_is_smaller_than_a_latent_cell_and_in_the_middle_of_the_box() -> None:
    for case in cases(8):
        left, top, right, bottom = shrunk(case).boxes[1]
        assert abs(right - left - TINY) < 1e-9 and TINY < 1 / 16
        x, y = (case.boxes[1][0] + case.boxes[1][2]) / 2, (case.boxes[1][1] + case.boxes[1][3]) / 2
        assert left < x < right and top < y < bottom
