"""Names, folders and hub ids become handles, or one line that says what to do."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import photopic
from photopic.core.errors import ModelError
from photopic.models import files
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline("v_prediction").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def test_a_folder_loads_to_the_same_weights(saved: Path) -> None:
    model = photopic.load(saved)
    assert model.name == "tiny" and model.dtype == torch.float32
    assert model.prediction_type == "v_prediction"
    assert model.digest() == TextToImage(tiny_pipeline("v_prediction")).digest()
    assert not any(part.training for part in model.components.values())


def test_dtype_and_sdxl_shape(tmp_path: Path) -> None:
    tiny_sdxl_pipeline().save_pretrained(tmp_path / "xl")
    model = photopic.load(str(tmp_path / "xl"), device="cpu", dtype=torch.bfloat16)
    assert {part.dtype for part in model.components.values()} == {torch.bfloat16}
    assert set(model.tokenizers) == {"text_encoder", "text_encoder_2"}


def test_a_bundled_name_comes_first(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BUNDLED", saved.parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert photopic.load("tiny").name == "tiny"


@pytest.mark.parametrize("name", ["nothing-like-this", "a/b/c", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ModelError, match=r"give a bundled name|has no model_index\.json"):
        photopic.load(name)


def test_an_unreachable_hub_id_is_one_line() -> None:
    with pytest.raises(ModelError, match="nobody/nothing: cannot be loaded") as caught:
        photopic.load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_broken_folders(copied: Path) -> None:
    def fails(match: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ModelError, match=match) as caught:
                photopic.load(copied)
        assert "\n" not in str(caught.value)

    index = copied / "model_index.json"
    text = index.read_text()
    index.write_text(json.dumps(json.loads(text) | {"_class_name": "NoSuchPipeline"}))
    fails("cannot be loaded")
    index.write_text("{")
    fails("is not a JSON object")
    index.write_text(text)
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    fails("cannot be loaded")
    weights.unlink()
    fails("cannot be loaded")
    shutil.rmtree(copied / "vae")
    fails("names vae but there is no such folder")
    index.unlink()
    fails("has no model_index.json")


def test_a_single_file_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="from_single_file"):
        photopic.load(tmp_path / "model.safetensors")
