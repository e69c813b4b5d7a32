"""The handle over dual encoders: what it computes is what transformers computes, and bad input is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from photopic.core.edits import DenseDelta, Edit, ZeroedWeights
from photopic.core.errors import DataError, ModelError
from photopic.models.dual_encoder import DualEncoder
from tests.tiny_encoders import saved_dual_encoder, tiny_dual_encoder

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 40, 36, 3), np.uint8)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_zero_shot_logits_are_those_of_the_network_itself(kind) -> None:
    model = tiny_dual_encoder(kind)
    names = ["bear", "cat", "red_mug"]
    texts = [f"a photo of a {name}." for name in ("bear", "cat", "red mug")]
    tokens = model.tokenizer(texts, padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        whole = model.network(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=model.preprocess(IMAGES)
        )
    assert torch.allclose(model.zero_shot(IMAGES, names, batch=2), whole.logits_per_image, atol=1e-5)


def test_the_classifier_of_several_templates_is_their_normalised_mean() -> None:
    model = tiny_dual_encoder()
    templates = ("a {}", "a photo of a {}")
    rows = [model.text_features([template.format("bear")]) for template in templates]
    found = model.class_features(["bear"], templates)
    assert torch.allclose(found, F.normalize(sum(rows) / 2, dim=-1)) and torch.allclose(
        found.norm(dim=-1), torch.ones(1)
    )


def test_an_edit_changes_the_features_and_its_end_restores_every_byte() -> None:
    model = tiny_dual_encoder()
    name = "network.vision_model.encoder.layers.0.self_attn.v_proj.weight"
    before, features = model.digest(), model.image_features(IMAGES)
    edit = Edit((ZeroedWeights({name: torch.arange(100)}),), model.fingerprint(name))
    with model.edits.applied(edit):
        assert not torch.allclose(model.image_features(IMAGES), features) and model.digest() != before
    assert model.digest() == before and torch.equal(model.image_features(IMAGES), features)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_a_saved_folder_is_read_as_it_was(kind, tmp_path: Path) -> None:
    model = tiny_dual_encoder(kind)
    again = DualEncoder.load(saved_dual_encoder(tmp_path / "m", kind))
    assert again.digest() == model.digest() and again.name == "m"
    assert torch.allclose(again.zero_shot(IMAGES, ["bear", "cat"]), model.zero_shot(IMAGES, ["bear", "cat"]), atol=1e-6)
    (tmp_path / "m" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer_config"):
        DualEncoder.load(tmp_path / "m")


def test_a_model_with_an_edit_in_force_is_saved_as_a_folder_of_transformers(tmp_path: Path) -> None:
    model, name = tiny_dual_encoder(), "network.visual_projection.weight"
    edit = Edit((DenseDelta({name: torch.ones_like(model.parameters(name)[name])}),), model.fingerprint(name))
    with model.edits.applied(edit):
        model.save(tmp_path)
        weights = {name: each.clone() for name, each in model.parameters().items()}
        features = model.image_features(IMAGES)
    again = DualEncoder.load(str(tmp_path))
    assert all(torch.equal(each, weights[name]) for name, each in again.parameters().items())
    torch.testing.assert_close(again.image_features(IMAGES), features)
    torch.testing.assert_close(again.text_features(["a bear"]), model.text_features(["a bear"]))
    assert not torch.equal(model.parameters(name)[name], weights[name])
    own = DualEncoder(model.network, tokenizer=model.tokenizer, preprocess=lambda images: torch.zeros(1, 3, 32, 32))
    with pytest.raises(ModelError, match="which no folder holds"):
        own.save(tmp_path / "own")


def test_a_tower_alone_or_a_damaged_network_is_refused(tmp_path: Path) -> None:
    model = tiny_dual_encoder()
    with pytest.raises(ModelError, match="no vision_model"):
        DualEncoder(model.network.text_model, tokenizer=model.tokenizer, preprocess=model._preprocess)
    model.network.visual_projection.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="visual_projection"):
        DualEncoder(model.network, tokenizer=model.tokenizer, preprocess=model._preprocess)
    with pytest.raises(ModelError, match="no such model"):
        DualEncoder.load("nothing-of-this-name")
    with pytest.raises(ModelError, match="emoji-diffusion"):
        DualEncoder.load("emoji-diffusion")


def test_bad_texts_are_named() -> None:
    model = tiny_dual_encoder()
    for labels, templates, words in (
        ([], ("a {}",), "expected one or more"),
        (["bear", " _ "], ("a {}",), "a token for"),
        (["bear"], ("a bear",), "where the name goes"),
        (["bear"], (), "templates"),
    ):
        with pytest.raises(DataError, match=words):
            model.class_features(labels, templates)
    with pytest.raises(DataError):
        model.image_features([])
