"""Whole pipelines with a quantised transformer, of torchao and as a GGUF file: edits beside it, gone without a trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

import photopic
from photopic.core.edits.file import load, save
from photopic.core.errors import EditError, ModelError
from photopic.core.frozen import plain_weight
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.core.edits.test_branches import content, drawn_with, few_shut
from tests.tiny_transformers import TINY, tiny_transformer_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, importing its own old names
WIDE = {  # blocks of GGUF are 32 columns
    "QwenImagePipeline": {"attention_head_dim": 16, "axes_dims_rope": (4, 4, 8)},
    "ZImagePipeline": {"dim": 32, "axes_dims": [4, 4, 8]},
}


@pytest.fixture(scope="module", params=WIDE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline as a user has it."""
    kind = request.param
    tiny = replace(TINY[kind], config={**TINY[kind].config, **WIDE[kind]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TINY, kind, tiny)
        pipeline = tiny_transformer_pipeline(kind)
    found = tmp_path_factory.mktemp(kind) / "model"
    pipeline.save_pretrained(found)
    return found


def check(
    model: TransformerTextToImage, again: TransformerTextToImage, plain: TransformerTextToImage, file: Path
) -> None:
    """An edit acts, goes, is saved for this base, fits the same base read again and not the plain one."""
    for each in (model, again, plain):
        each.image_size = 16
    before, base = content(model.network), drawn_with(model, None)
    edit = few_shut(model)
    edited = drawn_with(model, edit)
    assert (edited != base).any() and (drawn_with(model, None) == base).all() and content(model.network) == before
    save(edit, file)
    assert (drawn_with(again, load(file)) == edited).all()
    with pytest.raises(EditError, match="made for base"):
        plain.edits.load(load(file))
    # what quantised weights stand for, written plainly, draws as they do, and so does the edit on it
    for name, layer in model.network.named_modules():
        if isinstance(layer, nn.Linear):
            plain.network.get_submodule(name).weight.data.copy_(plain_weight(layer))
    with plain.edits.applied(edit, force=True):
        wanted = plain.generate("a bear", seeds=[0], steps=2)
    assert abs(edited.astype(int) - wanted).max() <= 2  # of 255


def as_gguf(path: Path, state: dict[str, Tensor]) -> None:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(path), "any")
    for name, tensor in state.items():
        if tensor.ndim == 2 and len(tensor) > 1 and tensor.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_beside_its_pipeline_is_loaded_and_edited(folder: Path, tmp_path: Path) -> None:
    plain = photopic.load(folder, device="cpu")
    assert isinstance(plain, TransformerTextToImage)
    path = folder.with_suffix(".gguf")
    as_gguf(path, plain.network.state_dict())
    model = photopic.load(path, device="cpu")
    assert isinstance(model, TransformerTextToImage)
    assert any(hasattr(each, "quant_type") for each in model.network.parameters())
    with pytest.raises(ModelError, match="is not serializable"):
        model.save(tmp_path / "saved")
    check(model, model, plain, tmp_path / "its.edit")


def test_a_gguf_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"GGUF and then nothing")
    said = {"one.gguf": "holds a transformer alone; put the other parts"}
    for kind, stated in (
        ("ChromaPipeline", "cannot be read as the Chroma"),
        ("PRXPipeline", "reads no .gguf file"),
    ):
        beside = tmp_path / kind
        tiny_transformer_pipeline(kind).save_pretrained(beside)
        beside.with_suffix(".gguf").write_bytes(b"GGUF and then nothing")
        said[f"{kind}.gguf"] = stated
    for name, stated in said.items():
        with pytest.raises(ModelError, match=stated) as caught:
            photopic.load(tmp_path / name, device="cpu")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_a_transformer_quantised_by_torchao_is_loaded_and_edited(folder: Path, config: str, tmp_path: Path) -> None:
    library: Any = pytest.importorskip("torchao.quantization")
    plain = photopic.load(folder, device="cpu")
    assert isinstance(plain, TransformerTextToImage)
    how = diffusers.TorchAoConfig(getattr(library, config)())
    kind = type(plain.network)
    network = kind.from_pretrained(folder, subfolder="transformer", quantization_config=how, torch_dtype=torch.float32)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, transformer=network, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    model = TransformerTextToImage(pipeline, "quantised")
    model.save(tmp_path / "saved")
    again = photopic.load(tmp_path / "saved", device="cpu")
    assert isinstance(again, TransformerTextToImage)
    check(model, again, plain, tmp_path / "its.edit")
