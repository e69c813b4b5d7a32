"""Folders that say how their pipeline is called, and folders saved without a text encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusion3Pipeline

from photopic.core.errors import ModelError
from photopic.models.files import INDEX
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny_transformers import tiny_transformer_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 3 without its third text encoder, as diffusers saves it."""
    whole = tiny_transformer_pipeline("StableDiffusion3Pipeline")
    parts = {name: part for name, part in whole.components.items() if not name.endswith("_3")}
    path = tmp_path_factory.mktemp("models") / "two"
    StableDiffusion3Pipeline(**parts, text_encoder_3=None, tokenizer_3=None).save_pretrained(path)
    return path


def said(folder: Path, call: object) -> None:
    index = json.loads((folder / INDEX).read_text()) | {"_call": call}
    (folder / INDEX).write_text(json.dumps(index))


def test_a_pipeline_saved_without_a_text_encoder_is_loaded(folder: Path) -> None:
    model = TextToImage.load(str(folder))
    assert sorted(model.tokenizers) == ["text_encoder", "text_encoder_2"]
    assert model.encode_prompts("a bear").rows[0]["encoder_hidden_states"].shape[1] > 256  # rows of zeros


def test_what_a_folder_says_of_the_call_is_done_and_saved_again(folder: Path, tmp_path: Path) -> None:
    plain = TextToImage.load(str(folder)).generate("a bear", seeds=[0], steps=2)
    said(folder, {"max_sequence_length": 0})
    model = TextToImage.load(str(folder))
    drawn = model.generate("a bear", seeds=[0], steps=2)
    assert not np.array_equal(plain, drawn)
    model.save(tmp_path / "again")
    assert np.array_equal(TextToImage.load(str(tmp_path / "again")).generate("a bear", seeds=[0], steps=2), drawn)


@pytest.mark.parametrize("call", [{"no_such_thing": 1}, ["max_sequence_length"]])
def test_what_the_call_does_not_take_is_refused(folder: Path, call: object) -> None:
    said(folder, call)
    with pytest.raises(
        ModelError, match=r"_call: expected arguments of StableDiffusion3Pipeline's call, found .*; take it out"
    ):
        TextToImage.load(str(folder))
