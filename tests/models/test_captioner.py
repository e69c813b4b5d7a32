"""Captioners: the same picture gives the same text, prompts go where a model takes them, broken folders are one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import photopic
from photopic.core.errors import DataError, ModelError
from photopic.models.captioner import Captioner
from photopic.models.files import CAPTIONER, CLASSIFIER, kind_of
from tests.tiny_captioners import LONGEST, WORDS, save_blip, save_plain, tiny_captioner

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("captioners")
    return {"plain": save_plain(place / "plain"), "blip": save_blip(place / "blip")}


@pytest.mark.parametrize("kind", ["plain", "blip"])
def test_a_folder_is_read_as_a_captioner_and_its_texts_do_not_depend_on_the_batch(kind, folders) -> None:
    model = photopic.load(folders[kind], device="cpu")
    assert isinstance(model, Captioner) and kind_of(folders[kind]) == CAPTIONER and not model.edits.names()
    texts = model.write(IMAGES, longest=5)
    assert texts == model.write(list(IMAGES), longest=5, batch=2) and len(texts) == 5
    assert {word for text in texts for word in text.split()} <= set(WORDS)


def test_writing_is_the_most_probable_next_token_each_time() -> None:
    model = tiny_captioner()
    pixels, ids = model.reader.inputs(list(IMAGES[:1]), "")["pixel_values"], torch.tensor([[1]])
    while ids.shape[1] <= LONGEST and ids[0, -1] != 2:
        ids = torch.cat([ids, model.forward(pixels, ids)[:, -1:].argmax(-1)], 1)
    assert model.write(IMAGES[:1]) == model.reader.texts(ids, None, "")


def test_a_prompt_is_taken_and_not_repeated(folders) -> None:
    model = Captioner.load(folders["blip"], device="cpu")
    told = model.write(IMAGES, "describe this picture", longest=4)
    assert model.takes_prompts and not any("describe this picture" in text for text in told)
    with pytest.raises(DataError, match="tiny: takes no prompt"):
        tiny_captioner().write(IMAGES, "describe this picture")


def test_a_language_model_alone_is_no_captioner(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}')
    assert kind_of(tmp_path) == CLASSIFIER


@pytest.mark.parametrize("lost", ["preprocessor_config.json", "tokenizer_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_one_line(lost: str, folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["plain"], tmp_path / "broken"))
    (folder / lost).unlink()
    with pytest.raises(
        ModelError, match=r"broken: (is not the folder of a whole captioner|cannot be loaded)"
    ) as caught:
        Captioner.load(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_another_kind_of_model_is_refused(folders) -> None:
    with pytest.raises(ModelError, match="expected a captioner, found a dual encoder"):
        Captioner.load("emoji-clip-vit")
