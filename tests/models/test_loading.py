"""Names, folders and hub ids become handles, or one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

import photopic
from photopic.core.errors import ModelError
from photopic.edit.interop._names import original_names
from photopic.models import files
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline
from tests.tiny_transformers import tiny_transformer_pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline("v_prediction").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def test_a_pipeline_in_memory_is_taken_where_it_is(saved: Path) -> None:
    pipeline = tiny_pipeline("v_prediction")
    found = photopic.load(pipeline)
    assert found.pipeline is pipeline and found.dtype == torch.float32 and found.name == "StableDiffusionPipeline"
    assert photopic.load(pipeline, "cpu", torch.float16).dtype == torch.float16
    assert photopic.load(StableDiffusionPipeline.from_pretrained(saved)).name == "tiny"  # and no folder above it
    transformer = photopic.load(tiny_transformer_pipeline("FluxPipeline"))
    assert transformer.network is transformer.pipeline.transformer
    with pytest.raises(ModelError, match="StableDiffusionPipeline: has its own preprocessing"):
        photopic.load(pipeline, labels=["a"])
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    other = DDPMPipeline(UNet2DModel(block_out_channels=(32,), **blocks), DDPMScheduler())
    with pytest.raises(ModelError, match="DDPMPipeline: "):
        photopic.load(other)


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
    fails("is no safetensors file")
    weights.unlink()
    fails("cannot be loaded")
    shutil.rmtree(copied / "vae")
    fails("names vae but there is no such folder")
    index.unlink()
    fails("has no model_index.json")


VAE = (  # names of diffusers and of the original layout; blocks of the decoder count from the other end
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"up.{2 - int(found[1])}.block.{found[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{2 - int(found[1])}.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
    ("group_norm", "norm"),
    (r"to_out\.0", "proj_out"),
    (r"to_([qkv])", r"\1"),
)


def original_layout(pipeline: Any) -> dict[str, Tensor]:
    """The weights of a tiny pipeline as a checkpoint in one file has them."""
    found = {}
    state = pipeline.unet.state_dict()
    names = original_names({key.rpartition(".")[0] for key in state})
    for key, each in state.items():
        path, _, last = key.rpartition(".")
        found[f"model.diffusion_model.{names[path]}.{last}"] = each.clone()
    for key, each in pipeline.vae.state_dict().items():
        for pattern, replacement in VAE:
            key = re.sub(pattern, replacement, key)
        is_projection = ".attn_1." in key and each.ndim == 2
        found[f"first_stage_model.{key}"] = each[..., None, None].clone() if is_projection else each.clone()
    for key, each in pipeline.text_encoder.state_dict().items():
        found[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = each.clone()
    return found


def test_a_single_file_loads_with_the_configuration_beside_it(saved: Path, tmp_path: Path) -> None:
    save_file(original_layout(tiny_pipeline()), tmp_path / "x.safetensors")
    shutil.copytree(saved, tmp_path / "x", ignore=shutil.ignore_patterns("*.safetensors"))
    found, wanted = TextToImage.load(tmp_path / "x.safetensors", "cpu"), TextToImage.load(saved, "cpu")
    ours, theirs = found.parameters(), wanted.parameters()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], each) for name, each in theirs.items())


def test_a_single_file_without_its_configuration_says_what_is_missing(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ModelError, match=r"x\.safetensors: a checkpoint in one file needs the configuration of its pipeline"
    ):
        TextToImage.load(tmp_path / "x.safetensors", "cpu")
    save_file({"conv.weight": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"x\.safetensors: expected a whole checkpoint .*, found conv\.weight"):
        TextToImage.load(tmp_path / "x.safetensors", "cpu")
    (tmp_path / "x.ckpt").write_bytes(b"no pickle is opened")
    with pytest.raises(ModelError, match=r"x\.ckpt: is a file, expected a folder"):
        TextToImage.load(tmp_path / "x.ckpt", "cpu")


def test_a_folder_of_half_precision_files_only_is_read(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path, variant="fp16")
    assert TextToImage.load(tmp_path, "cpu").digest() == TextToImage(tiny_pipeline(), "tiny").digest()


def test_a_compiled_unet_draws_as_the_plain_one() -> None:
    pipeline = tiny_pipeline()  # and of its network one level each way: every block is traced for a second
    pipeline.unet = UNet2DConditionModel.from_config(
        dict(pipeline.unet.config)
        | {
            "block_out_channels": (16,),
            "down_block_types": ("CrossAttnDownBlock2D",),
            "up_block_types": ("CrossAttnUpBlock2D",),
        }
    ).eval()
    expected = TextToImage(pipeline, "tiny").generate("a bear", seeds=[0], steps=1)
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    model = TextToImage(pipeline, "tiny")
    assert (model.generate("a bear", seeds=[0], steps=1) == expected).all()


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"x\.safetensors: is a pipe, expected a folder"):
        photopic.load(tmp_path / "x.safetensors")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ModelError, match="link: is a link that leads nowhere, expected a folder"):
        photopic.load(tmp_path / "link")


def test_a_folder_saved_while_an_adapter_was_active_is_named(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"unet/diffusion_pytorch_model\.safetensors: was saved while an adapter was active"
    ):
        TextToImage.load(tmp_path, "cpu")
