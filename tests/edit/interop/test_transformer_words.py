"""Textual inversions of several vectors on every text encoder of transformer pipelines, and nothing left of them afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.edits.runtime_tokens import input_embedding
from photopic.core.errors import EditError
from photopic.edit.interop.textual_inversion import export_textual_inversion, import_textual_inversion
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from photopic.models.text_to_image.words import with_all_vectors
from tests.edit.interop.examples import noise
from tests.tiny_transformers import shared_handle, tensors_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]
KINDS = {  # with two encoders, three, one of a chat model, one, and one of them of bytes
    "FluxPipeline": ("clip_l", "t5"),
    "StableDiffusion3Pipeline": ("clip_l", "clip_g", "t5xxl"),
    "QwenImagePipeline": ("text_encoder",),
    "SanaPipeline": ("text_encoder",),
    "HunyuanImagePipeline": ("text_encoder", "text_encoder_2"),
}


def told(model: TransformerTextToImage, prompt: str, *edits: Edit) -> list[torch.Tensor]:
    with model.edits.applied(*edits):
        return tensors_of(model.encode_prompts(prompt).rows[0])


def vectors(model: TransformerTextToImage, keys: tuple[str, ...], count: int = 3) -> dict[str, torch.Tensor]:
    """So many for every encoder, in its own order."""
    dims = [input_embedding(model.components[each]).embedding_dim for each in model.tokenizers]
    return {
        key: noise(count, dim, seed=place, size=1.0) for place, (key, dim) in enumerate(zip(keys, dims, strict=True))
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_acts_in_every_encoder_and_reverting_leaves_nothing(tmp_path: Path, kind: str) -> None:
    model, path = shared_handle(kind), tmp_path / "mine.safetensors"
    save_file(given := vectors(model, KINDS[kind]), path)
    before = {name: dict(each.get_vocab()) for name, each in model.tokenizers.items()}
    # quotes are what the encoder of bytes reads
    prompt = 'a "<mine>" bear' if kind == "HunyuanImagePipeline" else "a <mine> bear"
    plain, edit = told(model, prompt), import_textual_inversion(path, model)
    assert edit.tokens == ("<mine>", "<mine>_1", "<mine>_2")
    said = told(model, prompt, edit)
    for key in given:
        for number in range(3):
            save_file(
                {each: rows + (each == key) * torch.eye(3)[number][:, None] for each, rows in given.items()}, path
            )
            other = told(model, prompt, import_textual_inversion(path, model))
            assert any(not torch.equal(*pair) for pair in zip(said, other, strict=True)), (key, number)
    with model.edits.applied(edit):
        assert len(model.token_positions(prompt, "<mine>")) in (3, 6)  # two texts one behind the other in some
    assert {name: dict(each.get_vocab()) for name, each in model.tokenizers.items()} == before
    assert all(torch.equal(*pair) for pair in zip(plain, told(model, prompt), strict=True))


def test_a_single_tensor_is_for_the_encoder_with_rows_as_long(tmp_path: Path) -> None:
    model, path = shared_handle("QwenImagePipeline"), tmp_path / "mine.safetensors"
    (encoder,) = model.tokenizers
    dim = input_embedding(model.components[encoder]).embedding_dim
    save_file({"emb_params": noise(2, dim)}, path)
    assert [list(part.rows) for part in import_textual_inversion(path, model).of(TokenEmbedding)] == [[encoder]] * 2
    save_file({"emb_params": noise(2, dim + 1)}, path)
    with pytest.raises(EditError, match=f"expected vectors of length {dim}"):
        import_textual_inversion(path, model)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    model, path = shared_handle("StableDiffusion3Pipeline"), tmp_path / "mine.safetensors"
    save_file(vectors(model, KINDS["StableDiffusion3Pipeline"], 1), path)
    edit = import_textual_inversion(path, model)
    export_textual_inversion(edit, tmp_path / "again.safetensors")
    again = import_textual_inversion(tmp_path / "again.safetensors", model, token="<mine>")
    (first,), (second,) = edit.of(TokenEmbedding), again.of(TokenEmbedding)
    assert first.rows.keys() == second.rows.keys()
    assert all(torch.equal(row, second.rows[name]) for name, row in first.rows.items())


class Known:
    def get_added_vocab(self) -> dict[str, int]:
        return dict.fromkeys(("<a>", "<a>_1", "<a>_2", "<b>", "sks", "sks_1"), 0)


def test_words_are_said_in_full_as_whole_words_alone() -> None:
    assert (
        with_all_vectors("<a> and <b>, <a>_1 desks sks", [Known()]) == "<a> <a>_1 <a>_2 and <b>, <a>_1 desks sks sks_1"
    )


def test_vectors_of_a_t5_are_called_so_whatever_encoder_it_is(tmp_path: Path) -> None:
    """Flux has its T5 second, Stable Diffusion 3 third."""
    for rows, keys in (
        ({"text_encoder": 768, "text_encoder_2": 4096}, {"clip_l", "t5xxl"}),
        ({"text_encoder": 768, "text_encoder_2": 1280, "text_encoder_3": 4096}, {"clip_l", "clip_g", "t5xxl"}),
    ):
        word = TokenEmbedding("<mine>", {name: torch.ones(dim) for name, dim in rows.items()})
        export_textual_inversion(
            Edit((word,), shared_handle("FluxPipeline").fingerprint(), {}), tmp_path / "x.safetensors"
        )
        assert load_file(tmp_path / "x.safetensors").keys() == keys
