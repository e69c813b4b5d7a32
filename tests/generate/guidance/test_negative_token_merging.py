"""Negative token merging: pushed away from the likest cell of the reference, early, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from photopic.core.errors import DataError
from photopic.generate.guidance.negative_token_merging import (
    NegativeTokenMerging,
    NegativeTokenMergingConfig,
    pushed,
)
from photopic.models.text_to_image.handle import TextToImage
from tests.core.sampling.test_controls import counted

STEPS = 5
SURE = -1.0  # every cell is alike enough


@pytest.fixture
def reference(model: TextToImage, tmp_path: Path) -> str:
    file = tmp_path / "reference.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 30, 3), np.uint8)).save(file)
    return str(file)


def merging(reference: str | None = None, **options: float) -> NegativeTokenMerging:
    return NegativeTokenMerging(reference, config=NegativeTokenMergingConfig(**options))


def draw(model: TextToImage, seeds: list[int], *controls: NegativeTokenMerging, guidance: float = 5.0) -> np.ndarray:
    return model.generate("a bear", seeds=seeds, steps=STEPS, guidance=guidance, controls=controls)


def test_each_cell_moves_from_its_likest_cell_of_the_reference_where_they_are_alike() -> None:
    torch.manual_seed(0)
    features, others = torch.randn(2, 5, 3), torch.randn(2, 7, 3)
    found = pushed(features, others, 0.9, 0.6)
    moved = 0
    for row in range(2):
        for cell in range(5):
            cosines = [F.cosine_similarity(features[row, cell], other, dim=0) for other in others[row]]
            best = int(torch.stack(cosines).argmax())  # over the reference's cells, as the paper's text says
            expected = features[row, cell]
            if cosines[best] >= 0.6:
                expected, moved = 1.9 * expected - 0.9 * others[row, best], moved + 1
            assert torch.allclose(found[row, cell], expected, atol=1e-6)
    assert 0 < moved < 10


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"until": 0.0}, {"threshold": 1.0}])
def test_no_push_is_the_plain_picture_bit_for_bit(
    model: TextToImage, reference: str, options: dict[str, float]
) -> None:
    plain = draw(model, [0, 1])
    assert np.array_equal(draw(model, [0, 1], merging(**options)), plain)
    assert np.array_equal(draw(model, [0, 1], merging(reference, **options)), plain)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_in_a_batch_the_first_stays_and_the_others_move(model: TextToImage, guidance: float) -> None:
    plain = draw(model, [0, 1, 2], guidance=guidance)
    found = draw(model, [0, 1, 2], merging(threshold=SURE), guidance=guidance)
    assert np.array_equal(found[0], plain[0])
    assert all((found[row] != plain[row]).any() for row in (1, 2))
    alone = draw(model, [0], guidance=guidance)
    assert np.array_equal(draw(model, [0], merging(threshold=SURE), guidance=guidance), alone)  # nothing to leave


def test_a_reference_costs_a_call_in_early_steps_only_and_pictures_do_not_depend_on_their_batch(
    model: TextToImage, reference: str
) -> None:
    control = merging(reference, threshold=SURE, until=0.4)
    with counted(model) as rows:
        together = draw(model, [0, 1], control)
    assert rows == [4, 4] * 2 + [4] * 3  # two of five steps
    assert (together != draw(model, [0, 1])).any((1, 2, 3)).all()
    for row in range(2):
        alone = draw(model, [row], control)[0]
        assert np.abs(alone.astype(int) - together[row]).max() <= 1


def test_a_reference_that_is_no_picture_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(DataError, match=r"words\.png"):
        merging(str(tmp_path / "words.png"))
