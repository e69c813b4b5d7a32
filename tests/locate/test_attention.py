"""Attention maps per word: of the right words, the mean of what was captured, and drawn without changing the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.errors import ModelError
from photopic.core.nn.attention import capture_attention
from photopic.core.results import Map
from photopic.data.overlays import overlays
from photopic.locate.attention import AttentionConfig, attention
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_sdxl_pipeline

PROMPT = "a bear on a red background"
QUICK = AttentionConfig(steps=2, seed=3)
ONE = AttentionConfig(steps=1)


def test_every_word_of_the_prompt_has_a_map_of_its_own_tokens(model: TextToImage) -> None:
    found = attention(model, PROMPT, config=QUICK)
    assert found.labels == ("a", "bear", "on", "red", "background")
    assert found.values.shape == (1, 5, 8, 8) and found.values.min() > 0 and found.values.sum(1).max() < 1
    with capture_attention(model.unet, [2, [1, 4]]) as maps:
        plain = model.generate([PROMPT], seeds=[3], steps=2)[0]
    assert found.images is not None and np.array_equal(found.images[0], plain)
    np.testing.assert_allclose(found.values[0, [1, 0]], maps.mean().numpy(), atol=1e-6)


def test_words_phrases_layers_and_resolutions_can_be_chosen(model: TextToImage) -> None:
    middle = replace(QUICK, layers="mid_block.*")
    named = attention(model, PROMPT, ["red background", "bear"], config=middle)
    assert named.labels == ("red background", "bear") and named.values.shape == (1, 2, 4, 4)
    single = attention(model, PROMPT, ["red", "background"], config=middle)
    np.testing.assert_allclose(named.values[0, 0], single.values[0].mean(0), atol=1e-6)
    assert attention(model, PROMPT, ["bear"], config=replace(QUICK, resolution=4)).values.shape == (1, 1, 4, 4)
    assert named.provenance["prompt"] == PROMPT and named.provenance["config"]["layers"] == "mid_block.*"


@pytest.mark.filterwarnings("ignore::photopic.models.text_to_image.conditioning.TruncatedPromptWarning")
def test_a_prompt_longer_than_what_is_read_has_maps_of_words_before_its_end(model: TextToImage) -> None:
    long = "a bear " + "on a red background " * 40 + "house"
    assert attention(model, long, ["bear"], config=ONE).values.shape == (1, 1, 8, 8)
    with pytest.raises(ModelError, match="'house'"):
        attention(model, long, ["house"], config=ONE)


def test_xl_shaped_models_have_maps_too() -> None:
    found = attention(TextToImage(tiny_sdxl_pipeline(), "tiny"), "a bear", config=ONE)
    assert found.labels == ("a", "bear") and found.values.shape == (1, 2, 8, 8)


def test_overlays_have_a_picture_a_word_on_its_own_scale() -> None:
    image = np.full((16, 16, 3), 255, np.uint8)
    values = np.array([[[0.0, 1.0]], [[0.30, 0.31]], [[0.5, 0.5]]])
    (made,) = overlays(Map(values[None], ("strong", "weak", "flat"), images=image[None]), side=16)
    assert list(made) == ["strong", "weak", "flat"]
    assert np.array_equal(made["strong"], made["weak"])
    assert int(made["strong"][0, -1, 0]) > int(made["strong"][0, 0, 0]) + 100
    assert len(np.unique(made["flat"].reshape(-1, 3), axis=0)) == 1


def test_errors_name_the_word_and_the_prompt(model: TextToImage) -> None:
    with pytest.raises(ModelError, match="'cat' is not a word of the prompt 'a bear"):
        attention(model, PROMPT, ["cat"], config=QUICK)
    with pytest.raises(ModelError, match="expected a word to look for"):
        attention(model, "...", config=QUICK)
    with pytest.raises(ModelError, match="layers 'attn9': nothing captured"):
        attention(model, PROMPT, config=replace(QUICK, layers="attn9"))
    assert not any(part._forward_hooks for part in model.unet.modules())
    assert torch.is_grad_enabled()
