"""The folder has the edited weights to the bit, is read by the libraries of others, and the base is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import photopic
from photopic.core.edits import Edit, InitialNoise, ParallelAdapter
from photopic.core.errors import EditError
from photopic.edit.bake import bake
from photopic.models.handle import Handle
from photopic.models.text_to_image.handle import TextToImage
from tests.method_cases import WEIGHT, edit, encoder_edit, located_edit, pipeline
from tests.tiny_encoders import tiny_dual_encoder

BLOCK = WEIGHT.removesuffix(".weight")


@pytest.mark.parametrize("kind", ["pipeline", "dual encoder"])
def test_what_is_read_again_is_the_base_with_its_edits(kind: str, tmp_path: Path) -> None:
    model: Handle = pipeline() if kind == "pipeline" else tiny_dual_encoder()
    edits = [edit(), edit(20)] if kind == "pipeline" else [encoder_edit(0), encoder_edit(1)]
    weights = [1.0, 1.0] if kind == "pipeline" else [0.5, -1.0]
    before = model.digest()
    bake(edits, model, weights=weights, overlap="last").save(tmp_path / "baked")
    assert model.digest() == before and not model.edits.names()
    again = photopic.load(tmp_path / "baked")
    first, then = (
        model.edits.applied(edits[0], weight=weights[0]),
        model.edits.applied(edits[1], weight=weights[1], overlap="last"),
    )
    with first, then:
        assert again.digest() == model.digest() != before


def test_a_baked_pipeline_draws_as_the_edited_one(tmp_path: Path, model: TextToImage) -> None:
    part = edit()
    bake([part], model).save(tmp_path / "baked")
    again = photopic.load(tmp_path / "baked")
    assert isinstance(again, TextToImage)
    with model.edits.applied(part):
        drawn = model.generate("a bear", seeds=[3], steps=2)
    assert (again.generate("a bear", seeds=[3], steps=2) == drawn).all()


def test_what_weights_cannot_hold_is_refused(model: TextToImage) -> None:
    with pytest.raises(EditError, match="brings the word <mine>"):
        bake([located_edit("<mine>")], model)
    beside = ParallelAdapter({BLOCK: torch.ones(2, 8)}, {BLOCK: torch.ones(8, 2)})
    with pytest.raises(EditError, match="found insertion, which acts beside them"):
        bake([Edit((beside,), model.fingerprint())], model)
    start = Edit((InitialNoise(torch.zeros(4, 8, 8)),), model.fingerprint())
    with pytest.raises(EditError, match="found noise, which"):
        bake([start], model)
    with pytest.raises(EditError, match="expected one for each of 1 edits, found 2"):
        bake([edit()], model, weights=[1.0, 2.0])
    with pytest.raises(EditError, match="one or more, found none"):
        bake([], model)
