"""Edits kept to a region: all of the picture is the plain edit, none of it the model, bit for bit; nothing is left behind."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.edits import (
    Edit,
    LowRankDelta,
    Part,
    SparseWeights,
    SteeringVector,
    TokenEmbedding,
    TokenResidual,
    ZeroedWeights,
)
from photopic.core.errors import DataError, EditError
from photopic.core.nn.attention import capture_attention, cross_attention, rewrite_attention
from photopic.core.nn.hooks import tap
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.regional_edits import (
    RegionalEdits,
    RegionalEditsConfig,
    by_region,
    regional_edits,
)
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage

ALL = Layout((Region("<a> bear", (0.0, 0.0, 1.0, 1.0)),))
PAIR = Layout((Region("<a> bear", (0.0, 0.0, 0.5, 0.5)), Region("<b> cat", (0.5, 0.0, 1.0, 1.0))))
PROMPT = "a <a> bear and a <b> cat"
NOISE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def row(token: str) -> TokenEmbedding:
    return TokenEmbedding(token, {"text_encoder": torch.ones(32)})


def made(model: TextToImage, *parts: Part) -> Edit:
    names = [
        name
        for part in parts
        if isinstance(part, ZeroedWeights | SparseWeights | LowRankDelta)
        for name in part.names()
    ]
    return Edit(parts, model.edits.fingerprint(*names))


def shutting(model: TextToImage, token: str, first: int) -> Edit:
    indices = {name: torch.arange(first, weight.numel(), 3) for name, weight in attention_weights(model).items()}
    return made(model, ZeroedWeights(indices), row(token))


def predicted(model: TextToImage, edits: AbstractContextManager[object], prompt: str = PROMPT) -> tuple[Tensor, Tensor]:
    """The UNet's output, and that of its first cross-attention layer as a grid."""
    name = next(iter(cross_attention(model.unet)))
    with edits, torch.no_grad():
        prompts = model.encode_prompts([prompt] * 2)
        with tap(model.unet, name) as seen:
            output = model.predict(NOISE, torch.tensor(500), prompts)
    return output, seen[name][0].unflatten(1, (8, 8))


def tokens_only(model: TextToImage) -> AbstractContextManager[object]:
    return model.edits.applied(made(model, row("<a>"), row("<b>")))


def test_a_region_that_covers_everything_is_the_edit_applied_plainly(model: TextToImage) -> None:
    low_rank = LowRankDelta(
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight": torch.randn(32, 1)},
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight": torch.randn(1, 32)},
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight": 1.0},
    )
    for edit in (shutting(model, "<a>", 0), made(model, low_rank, row("<a>"))):
        for weight in (1.0, 0.5):
            plain, _ = predicted(model, model.edits.applied(edit, weight=weight))
            regional, _ = predicted(model, regional_edits(model, ALL, {"<a> bear": edit}, weight=weight))
            assert torch.equal(regional, plain)


def test_each_cell_is_bit_for_bit_of_the_edit_it_lies_in_and_of_the_model_elsewhere(model: TextToImage) -> None:
    edits = {"<a> bear": shutting(model, "<a>", 0), "<b> cat": shutting(model, "<b>", 1)}
    only = {words: Edit((edit.weight_parts), edit.base) for words, edit in edits.items()}
    _, mixed = predicted(model, regional_edits(model, PAIR, edits))
    with tokens_only(model):
        _, base = predicted(model, model.edits.applied())
        alone = [predicted(model, model.edits.applied(edit))[1] for edit in only.values()]
    expected = base.clone()
    for cells, each in zip(torch.from_numpy(PAIR.cells(8, 8)), alone, strict=True):
        expected[:, cells] = each[:, cells]
        assert not torch.equal(each[:, cells], base[:, cells])
    assert torch.equal(mixed, expected)


def test_nothing_is_left_behind_also_after_an_error(model: TextToImage) -> None:
    digest, (before, _) = model.digest(), predicted(model, tokens_only(model))
    edits = {"<a> bear": shutting(model, "<a>", 0)}
    with pytest.raises(RuntimeError, match="in the middle"), regional_edits(model, PAIR, edits):
        assert model.token_positions("a <a> bear", "<a>") == [2]
        raise RuntimeError("in the middle")
    assert model.digest() == digest and not model.edits.list()
    assert "<a>" not in model.tokenizers["text_encoder"].get_vocab()
    assert torch.equal(predicted(model, tokens_only(model))[0], before)


def test_it_works_together_with_rewriting_and_capturing_attention(model: TextToImage) -> None:
    edit = shutting(model, "<a>", 0)

    def first_half(scores: Tensor, place: object) -> Tensor:
        return scores.index_fill(-1, torch.arange(12, 24), -torch.inf)

    with rewrite_attention(model.unet, first_half), capture_attention(model.unet) as maps:
        plain, _ = predicted(model, model.edits.applied(edit))
        regional, _ = predicted(model, regional_edits(model, ALL, {"<a> bear": edit}))
        assert torch.equal(regional, plain)
    with regional_edits(model, ALL, {"<a> bear": edit}), rewrite_attention(model.unet, first_half):  # as sampling does
        assert torch.equal(predicted(model, nullcontext())[0], plain)
    assert set(maps.counts.values()) == {4}  # each layer once a call, whatever regions there are


def test_edits_go_to_the_region_that_names_their_word(model: TextToImage) -> None:
    a, b, c = shutting(model, "<a>", 0), shutting(model, "<b>", 1), shutting(model, "<c>", 2)
    assert list(by_region(PAIR, [b, a]).items()) == [("<b> cat", b), ("<a> bear", a)]
    with pytest.raises(DataError, match="<c> has no region; expected one region for each of 3 subjects"):
        by_region(PAIR, [a, b, c])
    with pytest.raises(EditError, match="one new word each, found none"):
        by_region(PAIR, [Edit(a.weight_parts, a.base)])


def test_a_subject_of_several_tokens_is_placed_by_the_first(model: TextToImage) -> None:
    residual = TokenResidual("<a> <a>_1", {"text_encoder": (1000, 1001)}, {"text_encoder": torch.ones(2, 32)})
    edit = made(model, row("<a>"), row("<a>_1"), residual)
    assert edit.tokens == ("<a>", "<a>_1") and edit.subjects == ("<a>",)
    assert by_region(PAIR, [edit]) == {"<a> bear": edit}


def test_what_cannot_be_kept_to_a_region_is_refused_by_name(model: TextToImage) -> None:
    conv = made(model, ZeroedWeights({"unet.conv_in.weight": torch.tensor([0])}), row("<a>"))
    hooked = made(model, SteeringVector({"unet.mid_block": torch.zeros(1)}), row("<a>"))
    for edit, reason in ((conv, "changes unet.conv_in.weight"), (hooked, "changes direction")):
        with pytest.raises(EditError, match=reason), regional_edits(model, ALL, {"<a> bear": edit}):
            pass
    with (
        pytest.raises(EditError, match="edit of '<d> dog': the layout has no such region, only '<a> bear'"),
        regional_edits(model, ALL, {"<d> dog": conv}),
    ):
        pass


def test_as_a_control_it_draws_as_the_model_inside_the_block_does(model: TextToImage) -> None:
    edit, digest = shutting(model, "<a>", 0), model.digest()
    for weight in (1.0, 0.5):
        control = RegionalEdits(PAIR, [edit], config=RegionalEditsConfig(weight=weight))
        drawn = model.generate("a <a> bear", seeds=[0, 1, 2], steps=2, batch=2, controls=[control])
        with regional_edits(model, PAIR, {"<a> bear": edit}, weight=weight):
            assert np.array_equal(drawn, model.generate("a <a> bear", seeds=[0, 1, 2], steps=2, batch=2))
    assert not np.array_equal(drawn, model.generate("a bear", seeds=[0, 1, 2], steps=2, batch=2))
    assert model.digest() == digest and not model.edits.names()


def test_a_region_with_a_prompt_of_its_own_reads_it_with_its_edit(model: TextToImage) -> None:
    """The first layer's cells inside are those of the edit under that prompt, those of the other region as without it."""
    own = Layout((replace(PAIR.regions[0], prompt="a red <a> guitar"), PAIR.regions[1]))
    edits = {"<a> bear": shutting(model, "<a>", 0), "<b> cat": shutting(model, "<b>", 1)}
    _, plain = predicted(model, regional_edits(model, PAIR, edits))
    _, mixed = predicted(model, regional_edits(model, own, edits))
    with tokens_only(model), model.edits.applied(Edit(edits["<a> bear"].weight_parts, edits["<a> bear"].base)):
        _, alone = predicted(model, nullcontext(), prompt="a red <a> guitar")
    inside = torch.from_numpy(PAIR.cells(8, 8)[0])
    torch.testing.assert_close(mixed[:, inside], alone[:, inside], atol=1e-6, rtol=1e-5)
    assert torch.equal(mixed[:, ~inside], plain[:, ~inside])
    assert not torch.allclose(mixed[:, inside], plain[:, inside], atol=1e-4)


def test_of_an_edit_of_words_alone_the_region_reads_its_own_prompt_too(model: TextToImage) -> None:
    own = Layout((replace(PAIR.regions[0], prompt="a red <a> guitar"),))
    edit = made(model, row("<a>"))
    with tokens_only(model):
        _, plain = predicted(model, nullcontext())
        _, alone = predicted(model, nullcontext(), prompt="a red <a> guitar")
    _, mixed = predicted(model, regional_edits(model, own, {"<a> bear": edit}), prompt="a <a> bear and a cat")
    inside = torch.from_numpy(PAIR.cells(8, 8)[0])
    torch.testing.assert_close(mixed[:, inside], alone[:, inside], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(plain[:, inside], alone[:, inside], atol=1e-4)
