"""Entropy scaling: nothing at the trained size, the paper's factor at any other, and an entropy that is measured right."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.nn.attention import Place
from photopic.core.sampling import Control, Step
from photopic.generate.guidance.entropy_scaling import (
    EntropyMeter,
    EntropyScaling,
    EntropyScalingConfig,
    cells_at,
    entropy_factor,
)
from photopic.generate.guidance.negative_token_merging import NegativeTokenMerging
from photopic.models.text_to_image.handle import TextToImage
from tests.cli.conftest import refusal

STEPS = 3


class Queries(Control):
    """Writes down the queries of self-attention."""

    kinds = ("self",)

    def __init__(self) -> None:
        self.seen: list[tuple[Place, Tensor]] = []

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, place: Place, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.append((place, query))
        return query, key, value


def draw(model: TextToImage, *controls: Control, **options: int) -> np.ndarray:
    return model.generate("a bear", seeds=[0, 1], steps=STEPS, controls=controls, **options)


def scaling(strength: float = 1.0) -> EntropyScaling:
    return EntropyScaling(config=EntropyScalingConfig(strength=strength))


def test_at_the_trained_size_attention_stays_as_it_was_bit_for_bit(model: TextToImage) -> None:
    assert np.array_equal(draw(model, scaling(4.0)), draw(model))
    side = model.image_size
    assert np.array_equal(draw(model, width=side, height=side), draw(model))


def test_elsewhere_queries_are_scaled_by_the_papers_factor_of_their_layer(model: TextToImage) -> None:
    side = model.image_size
    before, after = Queries(), Queries()
    pictures = draw(model, before, scaling(2.0), after, width=2 * side)
    assert pictures.shape[1:] == (side, 2 * side, 3)
    for (place, plain), (_, scaled) in zip(before.seen, after.seen, strict=True):
        cells = place.height * place.width
        factor = math.log(cells) / math.log(cells / 2)  # sqrt(log_T N) squared, T half of N on every grid
        assert torch.allclose(scaled, factor * plain)
    assert len({place.height for place, _ in before.seen}) > 0 and (pictures != draw(model, width=2 * side)).any()
    assert np.array_equal(draw(model, scaling(0.0), width=2 * side), draw(model, width=2 * side))


def test_a_layer_below_has_the_trained_cells_of_its_own_grid() -> None:
    assert cells_at((16, 16), (24, 40), Place("x", 12, 20, 1)) == 64
    assert cells_at((15, 15), (30, 30), Place("x", 8, 8, 1)) == 16  # 15 -> 8 -> 4 as 30 -> 15 -> 8
    assert entropy_factor(1, 64) == entropy_factor(64, 1) == 1.0


def test_the_meter_reads_nats_and_changes_nothing_but_rounding(model: TextToImage) -> None:
    meter, place = EntropyMeter(), Place("x", 2, 4, 1)
    step = Step(0, 1, torch.tensor(1), 1.0, 0.0, guided=False)
    meter.attention(torch.zeros(1, 1, 3, 8), place, step)
    meter.attention(torch.tensor([0.0] + [-math.inf] * 7).expand(1, 1, 3, 8), place, step)
    assert meter.mean == pytest.approx(math.log(8) / 2)
    assert np.abs(draw(model, meter).astype(int) - draw(model)).max() <= 1
    plain, sharp = EntropyMeter(), EntropyMeter()
    side = model.image_size
    draw(model, plain, width=2 * side)
    draw(model, scaling(), sharp, width=2 * side)
    assert sharp.mean < plain.mean


def test_a_size_that_is_no_multiple_is_refused_and_a_reference_of_another_size_is_taken(
    model: TextToImage, tmp_path: Path
) -> None:
    side = model.image_size
    with pytest.raises(ModelError, match="width and height: expected multiples of"):
        draw(model, width=side + 1)
    from PIL import Image

    file = tmp_path / "reference.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    draw(model, NegativeTokenMerging(str(file)), width=2 * side)


def test_a_size_beside_a_picture_to_start_from_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    said = refusal("generate", "a bear", "--image", tmp_path / "a.png", "--width", 128, "-o", tmp_path / "out")
    assert "--width and --height: expected none with --image" in said
