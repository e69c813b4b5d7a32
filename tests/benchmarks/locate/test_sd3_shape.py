"""The memory benchmark of a transformer on a tiny shape: every phase is a row, and the shape is that of the model named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel

from benchmarks.locate.sd3_shape import MEDIUM, QUICK, rows
from benchmarks.locate.sd15_shape import CLEAR


def test_the_shape_has_two_billion_weights() -> None:
    with torch.device("meta"):
        made = SD3Transformer2DModel(**MEDIUM)
    assert sum(parameter.numel() for parameter in made.parameters()) == pytest.approx(2.03e9, rel=0.03)


@pytest.mark.skipif(not CLEAR.exists(), reason="needs the high-water mark of Linux")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_phase_of_a_step_is_a_row() -> None:
    bench: Any = SimpleNamespace(config=QUICK)
    found = list(rows(bench))
    assert [row.claim for row in found] == [
        "sd3_shape.peak", "sd3_shape.peak_build", "sd3_shape.peak_preparing", "sd3_shape.peak_step"
    ]  # fmt: skip
    assert found[0].value == max(float(row.value or 0) for row in found[1:])
