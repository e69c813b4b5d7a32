"""Linear guidance: least squares that finds a linear law, full guidance where nothing is spared, and really fewer calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.sampling import Control, Step
from photopic.generate.guidance.adaptive_guidance import AdaptiveGuidance, AdaptiveGuidanceConfig
from photopic.generate.guidance.linear_guidance import (
    LinearFitConfig,
    LinearGuidance,
    LinearGuidanceConfig,
    _Sums,
    fit_linear_guidance,
)
from photopic.models.text_to_image.handle import TextToImage
from tests.core.sampling.test_controls import counted

STEPS = 5


def written(file: Path, said: dict[str, Any]) -> str:
    file.write_text(json.dumps(said))
    return str(file)


@pytest.fixture
def file(model: TextToImage, tmp_path: Path) -> str:
    config = LinearFitConfig(steps=STEPS, pictures=4)
    fit = fit_linear_guidance(model, prompts=["a bear", "a cat"], config=config)
    return written(tmp_path / "linear.json", fit.to_dict())


def linear(file: str, start: float, **options: int) -> LinearGuidance:
    return LinearGuidance(file, config=LinearGuidanceConfig(start=start, **options))


def draw(model: TextToImage, *controls: Control, **options: object) -> np.ndarray:
    return model.generate("a bear", seeds=[0, 1], controls=controls, **{"steps": STEPS} | options)


def at(index: int) -> Step:
    return Step(index, 3, torch.tensor(10 - index), 1.0, 0.5, guided=True)


def test_least_squares_finds_an_affine_law_and_how_much_it_explains() -> None:
    sums, rng = _Sums(), torch.Generator().manual_seed(0)
    for _ in range(3):
        sums.conditional, sums.unconditional = [], []  # as `start` does
        before = torch.zeros(())
        for index in range(3):
            conditional, other = torch.randn(2, 2, 1, 4, 4, generator=rng)
            said = 0.3 + 0.5 * conditional - 0.2 * before if index == 2 else other  # a law of the last step alone
            sums.guidance(conditional, said, 4.0, at(index))
            before = said
    found = sums.fitted(0.0).rows
    assert [each["timestep"] for each in found] == [10.0, 9.0, 8.0] and [len(each["weights"]) for each in found] == [
        2,
        4,
        6,
    ]
    assert np.allclose(found[2]["weights"], [0.3, 0.0, 0.0, 0.5, 0.0, -0.2])
    assert found[2]["explained"] == pytest.approx(1) and found[0]["explained"] < 0.9


def test_full_guidance_bit_for_bit_where_nothing_is_spared_and_fewer_calls_elsewhere(
    model: TextToImage, file: str
) -> None:
    plain = draw(model)
    assert np.array_equal(draw(model, linear(file, 1.0)), plain)
    assert np.array_equal(draw(model, linear(file, 0.5), guidance=1.0), draw(model, guidance=1.0))  # nothing to spare
    for control, expected in (
        (linear(file, 0.8, early=2), [4, 4, 2, 4, 2]),
        (linear(file, 0.4, late=2), [4, 4, 2, 4, 2]),
        (linear(file, 0.5), [4, 4, 4, 2, 2]),
    ):
        with counted(model) as rows:
            spared = draw(model, control)
        assert rows == expected and control.guided_steps == expected.count(4)
        assert (spared != plain).any()


def test_the_right_weights_give_back_full_guidance(model: TextToImage, file: str) -> None:
    class Linear(Control):
        """A run whose unconditional prediction is half the conditional one, plus one: known to the weights."""

        def __init__(self, steps: int):
            self.steps = steps

        def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float, step: Step) -> Tensor | None:
            said = 1 + 0.5 * conditional
            return said + scale * (conditional - said) if step.index < self.steps else None

    fit = json.loads(Path(file).read_text())
    for step, row in enumerate(fit["rows"]):
        row["weights"] = [1.0, *[0.0] * step, 0.5, *[0.0] * step]
    written(Path(file), fit)
    control = linear(file, 0.0)
    model.generate("a bear", seeds=[0], steps=STEPS, controls=[control])
    for step in range(1, STEPS):
        assert torch.allclose(control.unconditional[step], 1 + 0.5 * control.conditional[step])
    # the first step is guided by the law, those that are spared by the weights
    found = draw(model, linear(file, 0.0), Linear(1)).astype(int)
    assert np.abs(found - draw(model, Linear(STEPS))).max() <= 1 < np.abs(found - draw(model)).max()


def test_other_steps_and_a_control_that_hides_the_predictions_are_refused(model: TextToImage, file: str) -> None:
    with pytest.raises(ModelError, match=r"expected 5 steps.*fit it again"):
        draw(model, linear(file, 0.5), steps=STEPS + 1)
    adaptive = AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=1.0))
    with pytest.raises(ModelError, match="name linear_guidance first"):
        draw(model, adaptive, linear(file, 0.5))
    draw(model, linear(file, 0.5), adaptive)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], r"x\.json: expected what photopic measure linear-guidance --json prints"),
        ([{"timestep": 1.0, "weights": [1.0]}], r"x\.json: expected 2 t \+ 2 finite weights"),
        ([{"timestep": 1.0, "weights": [1.0, float("nan")]}], r"x\.json: expected 2 t \+ 2 finite weights"),
        ([{"weights": [1.0, 2.0]}], r"x\.json: expected 2 t \+ 2 finite weights"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        LinearGuidance(written(tmp_path / "x.json", {"name": "measure linear-guidance", "rows": rows}))
