"""Differences under the keys that ComfyUI's LoRA loader looks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from photopic.core.edits import DenseDelta, TokenEmbedding, ZeroedWeights
from photopic.core.errors import EditError
from photopic.edit.interop import export_comfy
from tests.edit.interop.examples import (
    BIAS,
    TO_K,
    largest_difference,
    make,
    mixed_edit,
    noise,
    text_output,
    tiny_model,
    unet_output,
)
from tests.tiny import tiny_pipeline

EMBEDDING = "text_encoder.embeddings.token_embedding.weight"


def patch_like_comfy(pipeline: Any, file: dict[str, Tensor]) -> set[str]:
    """Add differences by the rules of comfy/lora.py: every key is a layer's name with underscores; returns what was not loaded."""
    left = set(file)
    for prefix, module in (("lora_unet_", pipeline.unet), ("lora_te_text_model_", pipeline.text_encoder)):
        for name, parameter in module.named_parameters():
            layer, kind = name.rsplit(".", 1)
            key = f"{prefix}{layer.replace('.', '_')}.{'diff' if kind == 'weight' else 'diff_b'}"
            if key in left:
                assert file[key].shape == parameter.shape
                parameter.data += file[key].to(parameter)
                left.remove(key)
    return left


@pytest.mark.parametrize("half", [False, True])
def test_the_patched_model_is_the_edited_one(half: bool, tmp_path: Path) -> None:
    model, path, pipeline = tiny_model(), tmp_path / "comfy.safetensors", tiny_pipeline()
    edit = mixed_edit(model)
    report = export_comfy(edit, path, model, half=half)
    file = load_file(path)
    assert {tensor.dtype for tensor in file.values()} == {torch.float16 if half else torch.float32}
    assert patch_like_comfy(pipeline, file) == set()
    assert report.values["left_out"] == ["token <mine>"]
    assert {row["tensor"] for row in report.rows} == set(edit.touched())
    assert (max(row["relative_error"] for row in report.rows) > 0) == half
    with model.edits.applied(edit):
        close = 2e-3 if half else 1e-5
        assert largest_difference(unet_output(model.pipeline), unet_output(pipeline)) < close
        assert largest_difference(text_output(model.pipeline), text_output(pipeline)) < close


def test_keys_are_those_of_the_loader(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "comfy.safetensors"
    export_comfy(make(model, ZeroedWeights({TO_K: torch.tensor([0]), BIAS: torch.tensor([0])})), path, model)
    assert set(load_file(path)) == {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.diff",
        "lora_unet_mid_block_resnets_0_conv1.diff_b",
    }


def test_what_comfy_cannot_hold_is_named_or_refused(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "comfy.safetensors"
    both = make(model, ZeroedWeights({TO_K: torch.tensor([0]), EMBEDDING: torch.tensor([0])}))
    assert export_comfy(both, path, model).values["left_out"] == [EMBEDDING]
    path.unlink()
    with pytest.raises(EditError, match=r"comfy\.safetensors: nothing in this edit fits .*token <mine>"):
        export_comfy(make(model, TokenEmbedding("<mine>", {"text_encoder": noise(32)})), path, model)
    with pytest.raises(EditError, match=r"attn2_to_k\.diff: expected differences below 65504, found 1e\+06"):
        export_comfy(make(model, DenseDelta({TO_K: torch.full((32, 32), 1e6)})), path, model)
    assert not path.exists()
