"""Token residuals on tiny real pipelines: where they are added, what the encoder keeps, words of their own, exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, TokenResidual, compose
from photopic.core.edits.file import load, save, to_bytes
from photopic.core.errors import DataError, EditError
from photopic.data.captioned import CaptionedImages
from photopic.learning.parameters.text_encoder_copy import TunedText, moved, rows_of, starts_of, word_ids, word_parts
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.token_residual import TokenResidualConfig, token_residual
from tests.tiny import IMAGE_SIZE, tiny_pipeline, tiny_sdxl_pipeline

QUICK = TokenResidualConfig(steps=4, batch=2, lr=1e-3, sentences=6, sentences_per_step=2, evaluation=4)
IMAGES = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
SHOWN = CaptionedImages(IMAGES)
PROMPT = "a bear left of a red bear on a teal background"


@pytest.fixture(scope="module")
def learnt(model: TextToImage) -> Edit:
    return last(model)


def last(
    model: TextToImage, config: TokenResidualConfig = QUICK, captions: list[str] | None = None, **options: Any
) -> Edit:
    return token_residual(model, CaptionedImages(IMAGES, captions), config=config, **({"noun": "bear"} | options))


def residual_of(edit: Edit) -> TokenResidual:
    return next(part for part in edit.parts if isinstance(part, TokenResidual))


def hidden(model: TextToImage, prompt: str) -> Tensor:
    with torch.no_grad():
        return model.encode_prompts(prompt).hidden[0]


def zeros(model: TextToImage, noun: str) -> dict[str, Tensor]:
    widths = {name: model.components[name].config.hidden_size for name in model.tokenizers}  # type: ignore[union-attr]
    return {name: torch.zeros(len(ids), widths[name]) for name, ids in word_ids(model, noun).items()}


# --- exact: spec 2(g) 1 and 2


@pytest.mark.parametrize("token", [None, "<mine>"])
def test_a_zero_residual_changes_no_bit(model: TextToImage, token: str | None) -> None:
    options: dict[str, Any] = {"seeds": [0, 1], "steps": 2}
    plain = model.generate(PROMPT, **options)
    base = model.edits.fingerprint()
    edit = Edit(word_parts(model, "bear", token, zeros(model, "bear")), base)
    prompt = PROMPT.replace("bear", token or "bear")
    with model.edits.applied(edit):
        assert torch.equal(hidden(model, prompt), encoded := hidden_without(model, PROMPT))
        assert np.array_equal(model.generate(prompt, **options), plain)
    assert torch.equal(hidden(model, PROMPT), encoded)


def hidden_without(model: TextToImage, prompt: str) -> Tensor:
    model.edits.disable()
    try:
        return hidden(model, prompt)
    finally:
        model.edits.enable()


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize("noun", ["bear", "red bear"])
def test_only_the_nouns_rows_change_and_by_the_residual(make: Any, noun: str) -> None:
    model = TextToImage(make(), "tiny")
    edit = last(model, replace(QUICK, steps=2), noun=noun, captions=[f"a {noun}", f"a {noun} on a house"])
    prompt, plain = f"a cat and a {noun} in a house", hidden(model, f"a cat and a {noun} in a house")
    with model.edits.applied(edit):
        change = hidden(model, prompt) - plain
    part = residual_of(edit)
    added = torch.cat([part.residuals[name].float() for name in model.tokenizers], 1)
    at = model.token_positions(prompt, noun)
    assert len(at) == len(noun.split()) == len(added) and added.any()
    torch.testing.assert_close(change[at], added, atol=1e-5, rtol=0)
    change[at] = 0
    assert not change.any()
    assert all(each.dtype == torch.float16 for each in part.residuals.values())


def test_the_residual_is_the_mean_of_what_the_copy_says_differently(model: TextToImage) -> None:
    text, sentences = TunedText(model), ["a bear", "a red bear on a house", "a bear and a bear"]
    with torch.no_grad():
        for weight in text.weights.values():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    from photopic.learning.parameters.text_encoder_copy import mean_moved

    found = mean_moved(model, text, sentences, word_ids(model, "bear"), together=2)["text_encoder"]
    positions = [model.token_positions(sentence, "bear") for sentence in sentences]
    assert positions == [[2], [3], [2, 5]]
    changes = moved(model, text, sentences)["text_encoder"]
    expected = torch.stack([changes[row, at] for row, places in enumerate(positions) for at in places]).mean(0)
    torch.testing.assert_close(found, expected[None])
    assert not moved(model, TunedText(model), sentences)["text_encoder"].any()


def test_runs_of_tokens_are_found_wherever_they_begin(model: TextToImage) -> None:
    tokenizer = model.tokenizers["text_encoder"]
    starts = starts_of(tokenizer, ["a red bear", "a bear and a red bear"], word_ids(model, "red bear")["text_encoder"])
    assert starts.nonzero().tolist() == [[0, 2], [1, 5]]
    assert rows_of(starts, 2).nonzero().tolist() == [[0, 2], [0, 3], [1, 5], [1, 6]]


# --- what is learnt and what is kept


def test_the_base_is_never_written(model: TextToImage, learnt: Edit) -> None:
    before = model.digest()
    assert residual_of(last(model)).residuals["text_encoder"].equal(residual_of(learnt).residuals["text_encoder"])
    assert model.digest() == before and not any(each.requires_grad for each in model.components["unet"].parameters())
    assert learnt.touched() == {} and learnt.tokens == ()
    assert learnt.provenance["noun"] == "bear" and learnt.provenance["config"]["sentences"] == 6
    assert set(learnt.provenance["losses"]) == {"before", "after"}


def test_learning_lowers_the_loss_through_the_residual_alone(model: TextToImage) -> None:
    edit = last(model, replace(QUICK, steps=20, lr=1e-2, batch=4, sentence_weight=0.0, evaluation=16))
    assert edit.provenance["losses"]["after"] < edit.provenance["losses"]["before"]


@pytest.mark.parametrize("preservation", ["sentences", "bare-noun"])
def test_other_positions_move_less_where_they_are_held(model: TextToImage, preservation: Any) -> None:
    from photopic.tune.subject.token_residual import _captions, _Copy, encode_examples

    def drift(config: TokenResidualConfig) -> float:
        said = _captions(model, SHOWN, "bear", None, config)
        learner = _Copy(model, encode_examples(model, IMAGES, said), "bear", config)
        for step in range(15):
            learner.step(step)
        change = moved(model, learner.text, ["bear", "a bear on a house"])["text_encoder"].detach()
        rows = rows_of(
            starts_of(model.tokenizers["text_encoder"], ["bear", "a bear on a house"], learner.ids["text_encoder"]), 1
        )
        return float(change[~rows].norm())

    config = replace(QUICK, preservation=preservation, lr=1e-3)
    free = replace(config, sentence_weight=0.0, head_weight=0.0, tail_weight=0.0)
    held = replace(config, sentence_weight=1.0, head_weight=1.0, tail_weight=1.0)
    assert drift(held) < 0.5 * drift(free)


def test_the_published_preservation_is_its_formula(model: TextToImage) -> None:
    from photopic.tune.subject.token_residual import _Copy, encode_examples

    config = replace(QUICK, preservation="bare-noun", head_weight=0.3, tail_weight=0.7)
    learner = _Copy(model, encode_examples(model, IMAGES, ["red bear"] * 2), "red bear", config)
    assert learner._held(0).item() == 0
    with torch.no_grad():
        for weight in learner.text.weights.values():
            weight *= 1.1
    change = moved(model, learner.text, ["red bear"])["text_encoder"][0]
    expected = 0.3 * change[:1].norm() + 0.7 * change[3:].norm()
    torch.testing.assert_close(learner._held(0), expected)
    assert expected > 0


# --- words of their own


@pytest.mark.parametrize("noun", ["bear", "red bear"])
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
def test_two_subjects_of_one_noun_each_at_their_own_word(make: Any, noun: str, tmp_path: Path) -> None:
    model = TextToImage(make(), "tiny")
    base, dims = model.edits.fingerprint(), zeros(model, noun)
    edits = [
        Edit(word_parts(model, noun, token, {name: each + number for name, each in dims.items()}), base)
        for number, token in ((1.0, "<one>"), (2.0, "<two>"))
    ]
    for number, edit in enumerate(edits):
        save(edit, tmp_path / f"{number}.edit")
    edits = [load(tmp_path / f"{number}.edit") for number in (0, 1)]
    plain = hidden(model, f"a {noun} left of a {noun} on a house")
    first, second = (
        model.token_positions(f"a {noun} left of a {noun}", noun)[at:][: len(noun.split())]
        for at in (0, len(noun.split()))
    )
    expected = torch.zeros_like(plain)
    expected[first], expected[second] = 2.0, 1.0
    for together in ([edits[0], edits[1]], [edits[1], edits[0]], [compose(*edits)]):
        with model.edits.applied(*together):
            prompt = "a <two> left of a <one> on a house"
            torch.testing.assert_close(hidden(model, prompt) - plain, expected, atol=1e-5, rtol=0)
            assert model.token_positions(prompt, "<one>") == second
            assert model.token_positions(prompt, "house") == model.token_positions(
                prompt.replace("<two>", noun).replace("<one>", noun), "house"
            )
    assert torch.equal(hidden(model, f"a {noun} left of a {noun} on a house"), plain)


def test_a_learnt_word_does_what_the_noun_does_and_leaves_the_noun(model: TextToImage, learnt: Edit) -> None:
    own = last(model, token="<mine>")
    assert own.tokens == ("<mine>",) and own.provenance["token"] == "<mine>"
    with model.edits.applied(learnt):
        expected = hidden(model, "a bear on a house")
    plain = hidden(model, "a bear on a house")
    with model.edits.applied(own):
        assert torch.equal(hidden(model, "a <mine> on a house"), expected)
        assert torch.equal(hidden(model, "a bear on a house"), plain)
    captions = ["a <mine> on a house", "a bear"]
    assert last(model, token="<mine>", captions=captions).provenance["prompt"] == "a <mine> on a house"


# --- size and refusals


def test_a_residual_of_1024_halves_is_a_small_file(learnt: Edit) -> None:
    part = TokenResidual("bear", {"text_encoder": (320,)}, {"text_encoder": torch.randn(1, 1024).half()})
    assert len(to_bytes(Edit((part,), learnt.base, {}))) <= 2_500


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noun": "zyzzyva"}, DataError, "zyzzyva"),
        ({"captions": ["a bear", "two bears"]}, DataError, "'two bears': expected 'bear' as a word of its own"),
        ({"captions": ["a bear", "a cat"]}, DataError, "expected the noun 'bear'"),
        ({"captions": ["a bear"]}, DataError, "1 captions for 2 images"),
        ({"token": "cat"}, EditError, "already in the vocabulary"),
    ],
)
def test_what_does_not_fit_is_refused(model: TextToImage, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        last(model, **options)


def test_pictures_of_another_size_than_the_models_are_refused(model: TextToImage) -> None:
    with pytest.raises(DataError, match="draws 32x32 pixels"):
        token_residual(model, CaptionedImages(torch.zeros(1, 3, 64, 64)), noun="bear")
