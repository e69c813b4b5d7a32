"""Several things out of one picture, on a tiny real pipeline: sets, masks, phases, what the losses see, and what is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photopic.core.edits import DenseDelta, TokenEmbedding
from photopic.core.errors import DataError, EditError, ModelError
from photopic.core.nn.attention import Place
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.data.layout import Layout, Region
from photopic.data.masked_picture import MaskedPicture, read_masked_picture
from photopic.learning.losses.attention_masks import attention_mask_loss, attention_outside, watched_attention
from photopic.learning.losses.denoising import ConceptLoss
from photopic.learning.parameters.trained_tokens import TrainedTokens
from photopic.learning.subject.new_token import new_rows
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.break_a_scene import BreakASceneConfig, _Scene, break_a_scene
from tests.tiny import noise_pictures, tiny_sdxl_pipeline
from tests.tiny_transformers import shared_handle

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
PAIR = Layout((Region("<one> bear", LEFT), Region("<two> cat", RIGHT)))
SCENE = MaskedPicture(noise_pictures(1, 0)[0], PAIR)
THINGS = [("<one>", "bear"), ("<two>", "cat")]
KEPT = CaptionedImages(noise_pictures(2, 2), ["a cat", "a tree"])
QUICK = BreakASceneConfig(embedding_steps=2, weight_steps=2, batch=2)


def learner(model: TextToImage, config: BreakASceneConfig = QUICK, scene: MaskedPicture = SCENE) -> _Scene:
    return _Scene(model, scene, THINGS, KEPT, config)


def test_the_result_is_new_words_and_weights_and_comes_off_again(model: TextToImage) -> None:
    before = model.digest()
    edit = break_a_scene(model, SCENE, preserved=KEPT, config=QUICK)
    assert model.digest() == before and edit.tokens == ("<one>", "<two>")
    assert edit.subject and [edit.subject.said(token) for token in edit.tokens] == ["<one> bear", "<two> cat"]
    assert edit.provenance["prompt"] == "a <one> bear and a <two> cat"
    (delta,) = edit.of(DenseDelta)
    assert set(delta.names()) == {name for name in delta.names() if ".attn2.to_k." in name or ".attn2.to_v." in name}
    with model.edits.applied(edit):
        assert model.token_positions("a <two> cat", "<two> cat") == [2, 3] and model.digest() != before
    assert model.digest() == before


def test_words_learn_first_and_weights_after_them(model: TextToImage) -> None:
    first = [new_rows(model, token, noun, start="noun") for token, noun in THINGS]
    words = break_a_scene(model, SCENE, preserved=KEPT, config=replace(QUICK, weight_steps=0))
    assert not words.of(DenseDelta) and len(words.of(TokenEmbedding)) == 2
    for row, start in zip(words.of(TokenEmbedding), first, strict=True):
        moved = (row.rows["text_encoder"].float() - start.rows["text_encoder"]).abs()
        assert 0 < moved.max() <= 2.2 * QUICK.embedding_lr  # two steps of Adam
    learnt = learner(model)
    weights = {name: each.detach().clone() for name, each in learnt.weights.items()}
    for step, moves in ((0, False), (1, False), (2, True)):
        learnt.step(step)
        assert any(not torch.equal(each, weights[name]) for name, each in learnt.weights.items()) == moves


def test_all_sets_are_drawn_evenly_by_their_size_and_one_at_a_time_without_union(model: TextToImage) -> None:
    learnt, apart = learner(model), learner(model, replace(QUICK, union=False))
    sets = [learnt._set(0, slot) for slot in range(400)]
    pairs = [each for each in sets if len(each) == 2]
    assert 160 < len(pairs) < 240 and {*sets} == {(0,), (1,), (0, 1), (1, 0)}
    assert {len(apart._set(0, slot)) for slot in range(100)} == {1}


def test_the_loss_counts_inside_the_union_alone(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the loss of whole pictures, whose noise is changed outside the masks of what is named."""
    learnt = learner(model, replace(QUICK, attention_weight=0.0, batch=1, union=False))
    predict, inside = model.predict, learnt.masks[learnt._set(0, 0)[0]]

    def wrong_outside(noisy: Tensor, times: Tensor, conditioning: Any) -> Tensor:
        return predict(noisy, times, conditioning) + 100 * ~inside

    right = learner(model, replace(QUICK, attention_weight=0.0, batch=1, union=False)).step(0)["loss"]
    monkeypatch.setattr(model, "predict", wrong_outside)
    assert learnt.step(0)["loss"] == pytest.approx(right)
    monkeypatch.setattr(learnt, "masks", ~learnt.masks)
    assert learnt.step(0)["loss"] > 1000


def test_what_is_preserved_costs_as_in_the_other_learners(model: TextToImage) -> None:
    learnt = learner(model, replace(QUICK, embedding_steps=0))
    assert learnt.prior is not None
    loss = ConceptLoss(model, learnt.picture, learnt.picture, learnt.prior, batch=2, seed=0)
    draws = loss.draws(0)
    expected = loss.errors(loss._both, draws)[2:].mean().item()  # weights are the model's own before the first step
    assert learnt.step(0)["prior"] == pytest.approx(expected, rel=1e-4)


def test_the_attention_loss_is_that_of_the_paper() -> None:
    place = Place("attn2", 2, 2, 1)
    shares = torch.tensor([[0.2, 0.1], [0.1, 0.4], [0.2, 0.1], [0.0, 0.2]])  # (cells, tokens)
    layers = [(place, shares[None, None]), (place, shares[None, None])]  # two layers of one head, one picture
    # maps over their maximum: (1, .5, 1, 0) for the left, (.25, 1, .25, .5) for the right; masks (1, 0, 1, 0) and (0, 1, 0, 1)
    expected = 0.25 / 4 + (0.0625 + 0.0625 + 0.25) / 4
    assert attention_mask_loss(layers, PAIR, [{0: [0], 1: [1]}]).item() == pytest.approx(expected)
    assert attention_mask_loss(layers, PAIR, [{0: [0]}]).item() == pytest.approx(0.25 / 4)


def test_attention_outside_is_the_squared_share_of_each_layer() -> None:
    place = Place("attn2", 2, 2, 1)
    shares = torch.tensor([[0.2, 0.1], [0.1, 0.4], [0.2, 0.1], [0.0, 0.2]])  # (cells, tokens)
    layers = [(place, shares.expand(2, 1, 4, 2)), (place, (shares * 0 + 0.5).expand(2, 1, 4, 2))]
    things = list(zip(([0], [1]), PAIR.regions, strict=True))
    found = attention_outside(layers, [things, things[:1]])
    left, right = (0.04 + 0.25) / 2, (0.0625 + 0.25) / 2  # a fifth and a quarter outside, and half in the other layer
    torch.testing.assert_close(found, torch.tensor([(left + right) / 2, left]))
    assert attention_outside(layers, [[], things])[0] == 0


def test_attention_is_seen_with_gradients_at_the_finest_grid_and_changes_nothing(model: TextToImage) -> None:
    conditioning = model.encode_prompts(["a bear"])
    noisy, time = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    plain = model.predict(noisy, time, conditioning)
    conditioning.hidden.requires_grad_()
    with watched_attention(model.unet) as seen:
        found = model.predict(noisy, time, conditioning)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    assert {(place.height, place.width) for place, _ in seen} == {(8, 8)} and len(seen) == 3
    torch.testing.assert_close(seen[0][1].sum(-1), torch.ones(seen[0][1].shape[:3]))
    attention_mask_loss(seen, PAIR, [{0: [2]}]).backward()
    assert conditioning.hidden.grad is not None and conditioning.hidden.grad.any()


def test_the_attention_loss_draws_words_to_their_masks(model: TextToImage) -> None:
    config = replace(QUICK, embedding_steps=25, weight_steps=0, embedding_lr=0.05)
    last = {}
    for weight in (1e-9, 10.0):
        learnt = learner(model, replace(config, attention_weight=weight))
        last[weight] = np.mean([learnt.step(step)["attention"] for step in range(25)][-10:])
    assert last[10.0] < 0.9 * last[1e-9]


def test_interrupted_in_either_phase_is_uninterrupted(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photopic.core.fit.SAVE_EVERY", 1)
    whole = break_a_scene(model, SCENE, preserved=KEPT, config=QUICK)
    for done in (1, 3):
        cut = break_a_scene.events(model, SCENE, preserved=KEPT, config=QUICK, run=Run(tmp_path / str(done)))
        while next(cut).done < done:
            pass
        cut.close()
        again = break_a_scene(model, SCENE, preserved=KEPT, config=QUICK, run=Run(tmp_path / str(done)))
        assert [each.digest() for each in again.parts] == [each.digest() for each in whole.parts]


def test_rows_of_two_encoders_learn() -> None:
    model = TextToImage(tiny_sdxl_pipeline(), "tiny")
    tokens = TrainedTokens(model, [new_rows(model, "<one>", "bear", start="noun")])
    with tokens.applied():
        model.encode_prompts(["a <one> bear"]).hidden.square().sum().backward()
    assert sorted(tokens.values) == ["text_encoder/<one>", "text_encoder_2/<one>"]
    assert all(each.grad is not None and each.grad.any() for each in tokens.values.values())
    assert "<one>" not in model.tokenizers["text_encoder"].get_vocab()


def test_masks_come_from_boxes_paintings_and_cut_outs_and_are_cropped_as_the_picture(tmp_path: Path) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)  # twice as wide as high: the middle half is kept
    picture[:, 16:32] = 255
    Image.fromarray(picture).save(tmp_path / "scene.png")
    Image.fromarray(picture[..., 0]).save(tmp_path / "mask.png")
    cut = np.dstack([np.zeros_like(picture), np.zeros((32, 64), np.uint8)])
    cut[16:, 32:48, 3] = 255  # black, but opaque
    Image.fromarray(cut).save(tmp_path / "cut.png")
    regions = [
        {"words": "<one> bear", "mask": "mask.png"},
        {"words": "<two> cat", "alpha": "cut.png"},
        {"words": "<three> dog", "box": [0.5, 0.0, 1.0, 0.5]},
    ]
    (tmp_path / "scene.json").write_text(json.dumps({"picture": "scene.png", "regions": regions}))
    found = read_masked_picture(tmp_path / "scene.json", 32)
    assert (
        found.image.shape == (3, 32, 32)
        and (found.image[:, :, :16] == 1).all()
        and (found.image[:, :, 16:] == -1).all()
    )
    cells = found.layout.cells(2, 2)
    assert cells.tolist() == [
        [[True, False], [True, False]],
        [[False, False], [False, True]],
        [[False, True], [False, False]],
    ]
    assert found.digest() != replace(found, layout=Layout(found.layout.regions[:2])).digest()


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"regions": [{"words": "<one> bear", "box": [0, 0, 1, 1]}]}, 'expected "picture"'),
        ({"picture": "scene.png", "regions": [{"words": "<one> bear", "alpha": "scene.png"}]}, "opaque everywhere"),
        (
            {"picture": "scene.png", "regions": [{"words": "<one> bear", "box": [0, 0, 0.2, 1]}]},
            "outside the central square",
        ),
        (
            {"picture": "scene.png", "regions": [{"words": "<one> bear", "alpha": "scene.png", "mask": "scene.png"}]},
            "found both",
        ),
    ],
)
def test_a_file_without_picture_or_mask_is_refused(tmp_path: Path, stated: Any, said: str) -> None:
    Image.new("RGB", (64, 32), "white").save(tmp_path / "scene.png")
    (tmp_path / "scene.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match=said):
        read_masked_picture(tmp_path / "scene.json", 32)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("<one>", DataError, "expected a new word and what it is"),
        ("bear cat", EditError, "already in the vocabulary"),
        ("<one> zzqx", DataError, "does not know the word 'zzqx'"),
    ],
)
def test_a_region_is_called_by_a_new_word_and_a_known_noun(
    model: TextToImage, words: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        break_a_scene(model, MaskedPicture(SCENE.image, Layout((Region(words, LEFT),))), config=QUICK)


def test_pictures_of_another_size_no_steps_and_transformers_are_refused(model: TextToImage) -> None:
    with pytest.raises(DataError, match="draws 32x32 pixels"):
        break_a_scene(model, MaskedPicture(torch.zeros(3, 16, 16), PAIR), config=QUICK)
    with pytest.raises(DataError, match="expected a step of one of the phases"):
        break_a_scene(model, SCENE, config=replace(QUICK, embedding_steps=0, weight_steps=0))
    with pytest.raises(ModelError, match="transformer"):
        break_a_scene(shared_handle("FluxPipeline"), SCENE, config=QUICK)
