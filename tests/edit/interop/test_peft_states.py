"""peft as the judge: the adapters we write give the outputs of the edit."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from photopic.core.edits import DenseDelta, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.errors import EditError
from photopic.edit.interop import export_peft_shira, export_peft_trainable_tokens
from tests.edit.interop.examples import (
    CONV,
    PROMPT,
    Q_PROJ,
    TO_K,
    TO_V,
    largest_difference,
    make,
    noise,
    some_positions,
    text_output,
    tiny_model,
    unet_output,
)
from tests.tiny import tiny_pipeline

CLOSE = 1e-6
pytestmark = pytest.mark.filterwarnings(  # of peft's own code
    "ignore:`is_gradient_checkpointing` is deprecated", "ignore:Sparse invariant checks are implicitly disabled"
)
EMBEDDING = "text_encoder.embeddings.token_embedding.weight"


def test_peft_gives_the_outputs_of_a_sparse_edit(tmp_path: Path) -> None:
    model = tiny_model()
    shut = ZeroedWeights({TO_K: some_positions(100, 32 * 32), Q_PROJ: some_positions(7, 32 * 32)})
    values = SparseWeights({TO_V: some_positions(40, 32 * 32)}, {TO_V: noise(40, size=1.0)})
    edit = make(model, shut, values)
    report = export_peft_shira(edit, tmp_path, model)
    assert report.values == {"r": {"unet": 2, "text_encoder": 1}, "left_out": []}  # 100 entries need 2 x (32 + 32)
    assert {row["tensor"]: (row["changed"], row["stored"]) for row in report.rows}[TO_V] == (40, 128)
    pipeline = tiny_pipeline()
    plain = unet_output(pipeline)
    peft.PeftModel.from_pretrained(pipeline.unet, tmp_path / "unet")
    peft.PeftModel.from_pretrained(pipeline.text_encoder, tmp_path / "text_encoder")
    with model.edits.applied(edit):
        assert largest_difference(unet_output(model.pipeline), unet_output(pipeline)) < CLOSE
        assert largest_difference(text_output(model.pipeline), text_output(pipeline)) < CLOSE
        assert largest_difference(unet_output(pipeline), plain) > 1e-4


def test_the_state_has_the_keys_that_peft_saves(tmp_path: Path) -> None:
    model = tiny_model()
    export_peft_shira(make(model, ZeroedWeights({TO_K: torch.tensor([1])})), tmp_path / "ours", model)
    adapted = peft.PeftModel.from_pretrained(tiny_pipeline().unet, tmp_path / "ours/unet")
    adapted.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / each / "adapter_model.safetensors") for each in ("ours/unet", "theirs"))
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor)
        assert ours[key].dtype == tensor.dtype


def test_what_shira_cannot_hold_is_refused_or_named(tmp_path: Path) -> None:
    model = tiny_model()
    dense = make(model, DenseDelta({TO_K: noise(32, 32)}))
    wide = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"  # 16 x 32
    with pytest.raises(EditError, match=rf"unet: {wide}: SHiRA holds at most 480 of 512 entries, found 512 changed"):
        export_peft_shira(make(model, DenseDelta({wide: noise(16, 32)})), tmp_path, model)
    assert export_peft_shira(dense, tmp_path, model).values["r"] == {"unet": 16}  # 16 x (32 + 32) is all of it
    both = make(model, ZeroedWeights({CONV: torch.tensor([3]), TO_K: torch.tensor([3])}))
    assert export_peft_shira(both, tmp_path, model).values["left_out"] == [CONV]
    with pytest.raises(EditError, match="changes no linear layer"):
        export_peft_shira(make(model, ZeroedWeights({CONV: torch.tensor([3])})), tmp_path, model)


def test_peft_gives_the_prompt_embeddings_of_a_new_token_and_a_changed_row(tmp_path: Path) -> None:
    model = tiny_model()
    bear = model.tokenizers["text_encoder"]("bear", add_special_tokens=False).input_ids[0]
    rows = SparseWeights({EMBEDDING: torch.arange(32) + 32 * bear}, {EMBEDDING: noise(32, seed=8, size=1.0)})
    edit = make(model, TokenEmbedding("<mine>", {"text_encoder": noise(32, size=1.0)}), rows)
    report = export_peft_trainable_tokens(edit, tmp_path, model)
    new = len(model.tokenizers["text_encoder"])
    assert [(row["token"], row["id"]) for row in report.rows] == [(None, bear), ("<mine>", new)]
    pipeline = tiny_pipeline()
    plain = text_output(pipeline)
    pipeline.tokenizer.add_tokens("<mine>")
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
    adapted = peft.PeftModel.from_pretrained(pipeline.text_encoder, tmp_path / "text_encoder")
    prompt = f"a <mine> {PROMPT.removeprefix('a ')}"
    with model.edits.applied(edit):
        assert largest_difference(text_output(model.pipeline, prompt), text_output(pipeline, prompt)) < CLOSE
        assert largest_difference(text_output(model.pipeline), text_output(pipeline)) < CLOSE
        assert largest_difference(text_output(pipeline), plain) > 1e-4
    adapted.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    ours, theirs = (load_file(tmp_path / each / "adapter_model.safetensors") for each in ("text_encoder", "theirs"))
    assert ours.keys() == theirs.keys()


def test_an_edit_without_tokens_is_refused_and_the_rest_named(tmp_path: Path) -> None:
    model = tiny_model()
    shut = ZeroedWeights({TO_K: torch.tensor([3])})
    with pytest.raises(EditError, match="no tokens and changes no input embedding"):
        export_peft_trainable_tokens(make(model, shut), tmp_path, model)
    edit = make(model, shut, TokenEmbedding("<mine>", {"text_encoder": noise(32)}))
    assert export_peft_trainable_tokens(edit, tmp_path, model).values["left_out"] == [TO_K]
    assert json.loads((tmp_path / "text_encoder/adapter_config.json").read_text())["token_indices"] == [728]
