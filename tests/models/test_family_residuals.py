"""Token residuals on transformer pipelines: added exactly where a word stands, in every text encoder, whatever its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as kinds
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.edits.file import load, save
from photopic.core.edits.runtime_tokens import input_embedding
from photopic.core.errors import DataError, FieldError, ModelError
from photopic.data.captioned import CaptionedImages
from photopic.learning.parameters.text_encoder_copy import word_ids, word_parts
from photopic.learning.parameters.told_residual import ToldResidual
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.text_positions import BYTES, TEXTS
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from photopic.tune.subject.token_residual import TokenResidualConfig, token_residual
from tests.tiny_transformers import handle_of, kind_of, shared_handle, tensors_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


def residuals(model: TransformerTextToImage, encoders: tuple[str, ...], noun: str = "bear") -> dict[str, Tensor]:
    """One vector of ones a token of the noun, for some encoders."""
    dims = {each: input_embedding(model.components[each]).embedding_dim for each in encoders}
    return {each: torch.ones(len(word_ids(model, noun)[each]), dims[each]) for each in encoders}


def told(model: TransformerTextToImage, prompt: str) -> dict[str, Tensor]:
    """The text that the transformer is told, (tokens, ...) each."""
    (row,) = model.encode_prompts(prompt).rows
    found = {name: row[name] for name in (*TEXTS, BYTES[0]) if name in row}
    return {name: each[0] for name, each in found.items()}


def changed_rows(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, list[int]]:
    moved = {name: (each - other[name]).flatten(1).abs().amax(1) > 1e-6 for name, each in first.items()}
    return {name: each.nonzero().flatten().tolist() for name, each in moved.items()}


def test_a_residual_is_added_where_its_word_stands_and_nowhere_else(model: TransformerTextToImage) -> None:
    quotes = '"' if kind_of(model) == "HunyuanImagePipeline" else ""  # what the encoder of bytes reads
    prompt, base = f"a red {quotes}<mine>{quotes} on a house", model.fingerprint()
    every = tuple(model.tokenizers)
    words, residual = word_parts(model, "bear", "<mine>", residuals(model, every))
    with model.edits.applied(Edit((words,), base)):
        plain = told(model, prompt)
    if model.family.by_layers:
        with (
            pytest.raises(ModelError, match="Ideogram4Pipeline calls the layers of its text encoder one by one"),
            model.edits.applied(Edit((words, residual), base)),
        ):
            model.generate(prompt, seeds=[0], steps=2)
        return
    with model.edits.applied(Edit((words, residual), base)):
        moved, where = changed_rows(plain, told(model, prompt)), model.token_positions(prompt, "<mine>")
    if len(moved) == 1:
        assert [[row + model.family.registers for row in rows] for rows in moved.values()] == [where]
    assert sum(map(len, moved.values())) == len(where) > 0
    for (
        encoder
    ) in every:  # each encoder's own does something, but for one that is read as a single vector of the prompt
        alone = word_parts(model, "bear", "<mine>", residuals(model, (encoder,)))[1]
        with model.edits.applied(Edit((words, alone), base)):
            acts = any(changed_rows(plain, told(model, prompt)).values())
        assert acts == (kind_of(model) != "FluxPipeline" or encoder != "text_encoder"), encoder
    with model.edits.applied(Edit((words,), base)):
        again = told(model, prompt)
    assert all(torch.equal(each, again[name]) for name, each in plain.items())


def test_a_file_says_which_encoders_it_needs(tmp_path: Any) -> None:
    model = shared_handle("StableDiffusion3Pipeline")
    some = ("text_encoder", "text_encoder_3")
    parts = word_parts(model, "bear", "<mine>", residuals(model, some))
    save(Edit(parts, model.fingerprint()), tmp_path / "mine.edit")
    words, residual = load(tmp_path / "mine.edit").parts
    assert isinstance(words, TokenEmbedding) and tuple(words.rows) == residual.modules() == some


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if not family.by_layers])
def test_what_learns_reaches_the_transformer_as_its_edit_does(kind: str) -> None:
    """Each number of a text encoder is followed through the pipeline, so that gradients come back to the vectors."""
    model = shared_handle(kind)
    quoted = kind_of(model) == "HunyuanImagePipeline"  # what the encoder of bytes reads
    prompts = ['a red "bear" on a house'] if quoted else ["a red bear on a bear"]
    told = ToldResidual(model, "bear", prompts)
    assert told.asked == set(model.tokenizers)
    assert set(told.values) == told.asked - ({"text_encoder"} if kind_of(model) == "FluxPipeline" else set())
    for number, each in enumerate(told.values.values()):
        each.data.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(number)))
    edit = Edit(word_parts(model, "bear", None, told.residuals()), model.fingerprint())
    with model.edits.applied(edit):
        wanted = [model.encode_prompts(prompt).rows[0] for prompt in prompts]
    for number, row in enumerate(wanted):
        plain, found = model.encode_prompts(prompts[number]).rows[0], told.encoded([number]).rows[0]
        assert found.keys() == row.keys()
        pairs = list(zip(*(tensors_of(each) for each in (found, row, plain)), strict=True))
        assert any(not torch.equal(each, before) for _, each, before in pairs)
        for own, each, _ in pairs:
            torch.testing.assert_close(own, each, rtol=2e-3, atol=2e-3)  # files hold halves
        gradients = torch.autograd.grad(
            sum(each.sum() for each, *_ in pairs if each.requires_grad), told.values.values()
        )
        assert all(each.all() for each in gradients)


BRIEF = TokenResidualConfig(steps=8, batch=2, evaluation=8, vector_lr=0.1)


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline"])
def test_a_residual_is_learnt_from_pictures_and_lowers_the_loss(kind: str) -> None:
    model = shared_handle(kind)
    side, base = model.image_size, model.digest()
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = CaptionedImages(pictures, ("a <mine> on a house", None))
    edit = token_residual(model, images, noun="bear", token="<mine>", config=BRIEF)
    assert edit.provenance["losses"]["after"] < edit.provenance["losses"]["before"] and model.digest() == base
    assert edit.tokens == ("<mine>",) and edit.touched() == {}
    plain = told(model, "a bear on a house")
    with model.edits.applied(edit):
        moved = changed_rows(told(model, "a <mine> on a house"), plain)
        where = model.token_positions("a <mine> on a house", "<mine>")
        assert sum(map(len, moved.values())) == len(where) == (2 if kind.startswith("Stable") else 1)
        assert all(torch.equal(each, plain[name]) for name, each in told(model, "a bear on a house").items())


def test_options_of_the_copy_and_captions_without_the_noun_are_refused() -> None:
    model = shared_handle("ChromaPipeline")
    images = CaptionedImages(torch.zeros(1, 3, model.image_size, model.image_size), ("a bearskin",))
    options: dict[str, Any] = {"reads": "all", "sentences": 3, "lr": 1.0}
    for field, value in options.items():
        with pytest.raises(FieldError, match=f"{field}: has no effect on tiny, where the vector itself learns"):
            token_residual(model, images, noun="bear", config=replace(BRIEF, **{field: value}))
    with pytest.raises(DataError, match="a bearskin"):
        token_residual(model, images, noun="bear", config=BRIEF)


def test_a_residual_that_nothing_would_read_is_not_learnt() -> None:
    model = shared_handle("Ideogram4Pipeline")
    images = CaptionedImages(torch.zeros(1, 3, model.image_size, model.image_size))
    with pytest.raises(ModelError, match="calls the layers of its text encoder one by one"):
        token_residual(model, images, noun="bear", config=BRIEF)


def sentencepiece() -> transformers.PreTrainedTokenizerFast:
    """A unigram vocabulary with spaces in its pieces and none put before a text, as Gemma's."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("a", -1.0),
        ("\u2581bear", -1.0),
        ("bear", -1.0),
        ("\u2581", -2.0),
    ]
    backend = Tokenizer(kinds.Unigram([*pieces, *((letter, -9.0) for letter in "brems<>in")], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=48
    )


@pytest.mark.parametrize("made", [sentencepiece, lambda: transformers.ByT5Tokenizer(model_max_length=48)])
def test_the_ids_of_a_noun_are_those_behind_a_space_and_its_residuals_act(made: Any) -> None:
    model = handle_of("ChromaPipeline")
    model.pipeline.tokenizer = tokenizer = made()
    model.pipeline.text_encoder.resize_token_embeddings(512)
    (ids,) = word_ids(model, "bear").values()
    prompt = tokenizer("a bear a", add_special_tokens=False).input_ids
    assert any(tuple(prompt[start : start + len(ids)]) == ids for start in range(len(prompt)))
    assert "bear" in tokenizer.decode(ids) and len(ids) == (1 if made is sentencepiece else 4)
    parts, base = word_parts(model, "bear", "<mine>", residuals(model, ("text_encoder",))), model.fingerprint()
    with model.edits.applied(Edit(parts[: len(ids)], base)):  # one new word a token of the noun
        plain = told(model, "a <mine> a")
    with model.edits.applied(Edit(parts, base)):
        (moved,) = changed_rows(plain, told(model, "a <mine> a")).values()
        assert len(moved) == len(ids) and set(moved) <= set(model.token_positions("a <mine> a", "<mine>"))
