"""A new token on a real CLIP text encoder and tokenizer: it means its row while applied, and leaves nothing behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, EditStack, TokenEmbedding, ZeroedWeights, compose
from photopic.core.edits.runtime_tokens import AddedTokens
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

PROMPT = "a <Mine> bear on a red background"


class Model:
    """A text encoder and tokenizer, read back from a folder as a user's would be."""

    def __init__(self, folder: Path):
        pipeline = tiny_pipeline()
        pipeline.tokenizer.save_pretrained(folder)
        self.original = type(pipeline.tokenizer).from_pretrained(folder)
        self.encoder = pipeline.text_encoder
        self.tokenizers = {"text_encoder": self.original}
        self.embedding = self.encoder.get_input_embeddings()
        self.dim = self.embedding.weight.shape[1]
        self.stack = EditStack({"text_encoder": self.encoder}, self.tokenizers, name="tiny")
        self.base = fingerprint({"text_encoder": self.encoder}, "tiny", ["text_encoder.final_layer_norm.weight"])

    def edit(self, token: str = "<Mine>", seed: int = 0, dim: int | None = None) -> Edit:
        row = torch.randn(dim or self.dim, generator=torch.Generator().manual_seed(seed))
        return Edit((TokenEmbedding(token, {"text_encoder": row}),), self.base)

    def ids(self, prompt: str = PROMPT) -> list[int]:
        return self.tokenizers["text_encoder"](prompt).input_ids

    @torch.no_grad()
    def encode(self, prompt: str = PROMPT) -> Tensor:
        return self.encoder(torch.tensor([self.ids(prompt)])).last_hidden_state


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


def test_the_token_is_one_id_and_its_embedding_is_the_row(model: Model) -> None:
    edit = model.edit()
    plain = model.ids("a bear")
    with model.stack.applied(edit):
        ids = model.ids("a <Mine> bear")
        assert len(ids) == len(plain) + 1 and ids[:2] == [*plain[:1], plain[1]] and ids[3:] == plain[2:]
        assert ids[2] == len(model.original) - 1
        found = model.embedding(torch.tensor([ids]))[0]
        assert torch.equal(found[2], edit.parts[0].rows["text_encoder"])  # type: ignore[union-attr]
        assert torch.equal(found[3], model.embedding.weight[ids[3]])


def test_the_row_is_the_only_thing_the_token_means(model: Model) -> None:
    """The encoding equals that of a model whose embedding really has one more row."""
    edit = model.edit()
    with model.stack.applied(edit):
        found, ids = model.encode(), model.ids()
    grown = copy.deepcopy(model.encoder)
    grown.resize_token_embeddings(len(model.original) + 1, mean_resizing=False)
    with torch.no_grad():
        grown.get_input_embeddings().weight[-1] = edit.parts[0].rows["text_encoder"]  # type: ignore[union-attr]
        assert torch.equal(grown(torch.tensor([ids])).last_hidden_state, found)


def test_other_prompts_are_encoded_as_before(model: Model) -> None:
    before = model.encode("a cat left of a mug")
    with model.stack.applied(model.edit()):
        assert torch.equal(model.encode("a cat left of a mug"), before)


def test_the_tokenizer_stays_the_same_object_and_forgets_the_word(model: Model) -> None:
    weight, before = model.embedding.weight, model.encode()
    state = copy.deepcopy(model.encoder.state_dict())
    vocabulary = dict(model.original.get_vocab())
    with model.stack.applied(model.edit(), weight=1.0):
        assert model.tokenizers["text_encoder"] is model.original and "<Mine>" in model.original.get_vocab()
        assert not torch.equal(model.encode()[:, :1], torch.zeros(1))
    assert model.tokenizers["text_encoder"] is model.original and model.original.get_vocab() == vocabulary
    assert model.embedding.weight is weight and "forward" not in model.embedding.__dict__
    assert all(torch.equal(model.encoder.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(model.encode(), before)


def test_several_tokens_leave_in_any_order(model: Model) -> None:
    one, two = model.edit("<one>", 1), model.edit("<two>", 2)
    first, second = model.stack.load(one), model.stack.load(two)
    assert (first, second) == ("<one>", "<two>")
    both = model.encode("a <one> bear")
    for token, edit in (("<one>", one), ("<two>", two)):
        where = torch.tensor([model.tokenizers["text_encoder"].convert_tokens_to_ids(token)])
        assert torch.equal(model.embedding(where)[0], edit.parts[0].rows["text_encoder"])  # type: ignore[union-attr]
    model.stack.unload(first)
    with_second = model.ids("a <two> bear")
    assert len(with_second) == 5 and len(model.ids("a <one> bear")) > 5
    model.stack.unload(second)
    assert model.tokenizers["text_encoder"] is model.original
    with model.stack.applied(compose(one, two)):
        assert torch.equal(model.encode("a <one> bear"), both)


def test_weight_zero_adds_no_token(model: Model) -> None:
    before = model.ids()
    with model.stack.applied(model.edit(), weight=0.0):
        assert model.ids() == before and model.tokenizers["text_encoder"] is model.original


def test_tokens_and_weights_in_one_edit(model: Model) -> None:
    name = "text_encoder.final_layer_norm.weight"
    edit = Edit((ZeroedWeights({name: torch.tensor([0, 3])}), *model.edit().parts), model.base)
    layer = model.encoder.get_submodule("final_layer_norm")
    with model.stack.applied(edit):
        assert layer.weight[[0, 3]].tolist() == [0.0, 0.0] and len(model.ids("<Mine>")) == 3
    assert layer.weight[[0, 3]].tolist() == [1.0, 1.0] and len(model.ids("<Mine>")) > 3


def test_an_interruption_between_two_encoders_leaves_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, made, put = tiny_sdxl_pipeline(), [], AddedTokens.set

    def interrupted(added: AddedTokens, tokens: Any) -> None:
        if made and tokens:
            raise KeyboardInterrupt
        made.append(tokens)
        put(added, tokens)

    names = ("text_encoder", "text_encoder_2")
    encoders = {name: getattr(pipeline, name) for name in names}
    tokenizers = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
    before, stack = dict(tokenizers), EditStack(encoders, tokenizers)
    rows = {name: torch.zeros(encoders[name].get_input_embeddings().weight.shape[1]) for name in names}
    edit = Edit((TokenEmbedding("<Mine>", rows),), fingerprint(encoders, "tiny"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AddedTokens, "set", interrupted)
        stack.load(edit)
    assert made and stack.names() == ()
    assert all(tokenizers[name] is before[name] and "<Mine>" not in before[name].get_vocab() for name in names)
    assert all("forward" not in encoder.get_input_embeddings().__dict__ for encoder in encoders.values())


def test_a_word_of_the_vocabulary_is_refused(model: Model) -> None:
    for token in ("bear", "Bear", "<|endoftext|>"):
        with pytest.raises(EditError, match="already in the vocabulary"):
            model.stack.load(model.edit(token))
    assert model.tokenizers["text_encoder"] is model.original


def test_a_token_can_be_added_once(model: Model) -> None:
    model.stack.load(model.edit())
    with pytest.raises(EditError, match="already added by another edit"):
        model.stack.load(model.edit(seed=3))
    assert len(model.ids("<Mine>")) == 3


def test_a_row_of_another_width_or_for_another_encoder_is_refused(model: Model) -> None:
    with pytest.raises(EditError, match=f"expected a row of {model.dim}, found 3"):
        model.stack.load(model.edit(dim=3))
    with pytest.raises(EditError, match="tiny: has no text encoder text_encoder_2"):
        model.stack.load(Edit((TokenEmbedding("<Mine>", {"text_encoder_2": torch.zeros(3)}),), model.base))


@pytest.mark.parametrize("token", ["", "two words", "tab\tbed"])
def test_a_token_is_a_word(token: str) -> None:
    with pytest.raises(EditError, match="without spaces"):
        TokenEmbedding(token, {"text_encoder": torch.zeros(3)})


def test_half_precision_encoders_and_copies_work(model: Model) -> None:
    model.encoder.to(torch.bfloat16)
    with model.stack.applied(model.edit()):
        found = model.encode()
        assert found.dtype == torch.bfloat16
        duplicate = copy.deepcopy(model.encoder)
        assert torch.equal(duplicate(torch.tensor([model.ids()])).last_hidden_state, found)
