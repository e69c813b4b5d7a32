"""Tokens of edits in diffusers' own loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from photopic.core.edits import TokenEmbedding, ZeroedWeights
from photopic.core.errors import EditError
from photopic.edit.interop import export_textual_inversion
from tests.edit.interop.examples import TO_K, largest_difference, make, noise, text_output, tiny_model
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

PROMPT = "a <mine> bear on a red background"


def test_diffusers_gives_the_prompt_embeddings_of_the_edit(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "mine.safetensors"
    edit = make(
        model, TokenEmbedding("<mine>", {"text_encoder": noise(32, size=1.0)}), ZeroedWeights({TO_K: torch.tensor([0])})
    )
    report = export_textual_inversion(edit, path)
    assert report.values == {"token": "<mine>", "left_out": [TO_K]}
    pipeline = tiny_pipeline()
    plain = text_output(pipeline, PROMPT)
    pipeline.load_textual_inversion(path)
    with model.edits.applied(edit):
        assert torch.equal(text_output(model.pipeline, PROMPT), text_output(pipeline, PROMPT))
        assert largest_difference(text_output(pipeline, PROMPT), plain) > 1e-3


def test_both_encoders_of_sdxl_get_their_rows(tmp_path: Path) -> None:
    model, path = tiny_model(sdxl=True), tmp_path / "mine.safetensors"
    rows = {"text_encoder": noise(32, size=1.0), "text_encoder_2": noise(32, seed=2, size=1.0)}
    edit = make(model, TokenEmbedding("<mine>", rows))
    export_textual_inversion(edit, path)
    pipeline = tiny_sdxl_pipeline()
    state = load_file(path)
    for key, encoder, tokenizer in (
        ("clip_l", pipeline.text_encoder, pipeline.tokenizer),
        ("clip_g", pipeline.text_encoder_2, pipeline.tokenizer_2),
    ):
        pipeline.load_textual_inversion(state[key], token="<mine>", text_encoder=encoder, tokenizer=tokenizer)
    with model.edits.applied(edit):
        assert torch.equal(text_output(model.pipeline, PROMPT), text_output(pipeline, PROMPT))


def test_several_tokens_are_written_one_by_one(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "one.safetensors"
    rows = {"<a>": noise(32), "<b>": noise(32, seed=2)}
    edit = make(model, *(TokenEmbedding(token, {"text_encoder": row}) for token, row in rows.items()))
    with pytest.raises(EditError, match=r"one\.safetensors: this edit has the tokens <a>, <b>; say which"):
        export_textual_inversion(edit, path)
    with pytest.raises(EditError, match=r"has no token '<c>'; found <a>, <b>"):
        export_textual_inversion(edit, path, token="<c>")
    assert export_textual_inversion(edit, path, token="<b>").values["left_out"] == ["token <a>"]
    assert torch.equal(load_file(path)["<b>"], rows["<b>"][None])
    with pytest.raises(EditError, match="expected an edit with a new token"):
        export_textual_inversion(make(model, ZeroedWeights({TO_K: torch.tensor([0])})), path)
