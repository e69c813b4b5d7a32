"""Captured cross-attention is the layer's own, for the right half of the batch, and capturing changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.attention import announce_guidance, capture_attention
from photopic.core.nn.hooks import tap
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


def call(model: TextToImage, prompts: list[str], size: tuple[int, int] = (8, 8), seed: int = 0) -> Tensor:
    noisy = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(seed)).expand(len(prompts), -1, -1, -1)
    return model.predict(noisy, torch.tensor(500), model.encode_prompts(prompts))


@pytest.mark.parametrize("build", [tiny_pipeline, tiny_sdxl_pipeline])
def test_output_is_the_same_with_capture_and_everything_is_restored(build: type) -> None:
    model = TextToImage(build(), "tiny")
    before = call(model, ["a bear", "a cat"])
    processors = dict(model.unet.attn_processors)
    with capture_attention(model.unet):
        during = call(model, ["a bear", "a cat"])
    assert torch.equal(before, during)
    assert all(model.unet.attn_processors[name] is processor for name, processor in processors.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.unet.modules())


def test_hooks_are_gone_after_an_exception(model: TextToImage) -> None:
    with pytest.raises(RuntimeError, match="body"), capture_attention(model.unet):
        raise RuntimeError("body")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.unet.modules())


def test_probabilities_are_softmax_of_queries_and_keys(model: TextToImage) -> None:
    with tap(model.unet, f"{LAYER}.to_q", f"{LAYER}.to_k") as seen, capture_attention(model.unet) as maps:
        call(model, ["a bear on a red background"])
    heads = model.unet.get_submodule(LAYER).heads
    query, key = (seen[f"{LAYER}.to_{part}"][0][0].unflatten(-1, (heads, -1)) for part in "qk")
    scores = torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(query.shape[-1])
    expected = scores.softmax(-1).mean(0).T.reshape(-1, 4, 4)  # (heads, cells, tokens) -> (tokens, h, w)
    torch.testing.assert_close(maps.mean(layers=LAYER), expected)


def test_probabilities_of_all_tokens_add_up_to_one(model: TextToImage) -> None:
    with capture_attention(model.unet) as maps:
        call(model, ["a bear", "a cat"])
    torch.testing.assert_close(maps.mean().sum(0), torch.ones(8, 8))
    assert maps.mean(resolution=4).shape == (24, 4, 4)


def test_only_the_conditional_half_counts_under_guidance(model: TextToImage) -> None:
    with capture_attention(model.unet, [1, 2]) as alone:
        call(model, ["a bear"])
    with capture_attention(model.unet, [1, 2], guided=True) as guided:
        call(model, ["", "a bear"])
    with capture_attention(model.unet, [1, 2]) as announced, announce_guidance(True):
        call(model, ["", "a bear"])
    with capture_attention(model.unet, [1, 2]) as both:
        call(model, ["", "a bear"])
    torch.testing.assert_close(guided.mean(), alone.mean(), atol=1e-6, rtol=0)
    assert torch.equal(announced.mean(), guided.mean())
    assert not torch.allclose(both.mean(), alone.mean(), atol=1e-6, rtol=0)


def test_generate_says_that_it_guides(model: TextToImage) -> None:
    for guidance, rows in ((5.0, 2), (1.0, 2)):
        with capture_attention(model.unet, [2]) as maps:
            model.generate("a bear", seeds=[0, 1], steps=3, guidance=guidance)
        assert set(maps.counts.values()) == {rows * 3}
    with capture_attention(model.unet, [2], guided=True) as maps:
        model.pipeline(["a bear"], num_inference_steps=2, guidance_scale=5.0, output_type="latent")
    assert set(maps.counts.values()) == {2}


def test_capture_does_not_change_a_picture(model: TextToImage) -> None:
    plain = model.generate("a bear", seeds=[3], steps=3)
    with capture_attention(model.unet, [2]):
        assert np.array_equal(model.generate("a bear", seeds=[3], steps=3), plain)


def test_a_word_of_several_tokens_has_the_mean_of_its_tokens(model: TextToImage) -> None:
    with capture_attention(model.unet, [2, 3, [2, 3]]) as maps:
        call(model, ["a zz"])
    first, second, word = maps.mean()
    torch.testing.assert_close(word, (first + second) / 2)


def test_maps_average_over_steps_and_samples(model: TextToImage) -> None:
    singles = []
    for seed in (0, 1):
        with capture_attention(model.unet, [2]) as maps:
            call(model, ["a bear"], seed=seed)
        singles.append(maps.mean())
    with capture_attention(model.unet, [2]) as maps:
        call(model, ["a bear"], seed=0)
        call(model, ["a bear"], seed=1)
    torch.testing.assert_close(maps.mean(), torch.stack(singles).mean(0))


@pytest.mark.parametrize("size", [(8, 16), (6, 10), (5, 7)])
def test_maps_of_latents_that_are_not_square(model: TextToImage, size: tuple[int, int]) -> None:
    with capture_attention(model.unet, [1]) as maps:
        call(model, ["a bear"], size)
    assert maps.mean().shape == (1, *size)
    assert set(maps.resolutions.values()) == {size, (-(-size[0] // 2), -(-size[1] // 2))}


def test_errors_name_the_thing(model: TextToImage) -> None:
    with pytest.raises(ModelError, match="position 24 does not exist"), capture_attention(model.unet, [24]):
        call(model, ["a bear"])
    with pytest.raises(ModelError, match="a batch of 1 is not two"), capture_attention(model.unet, guided=True):
        call(model, ["a bear"])
    with pytest.raises(ModelError, match="Linear has no cross-attention layer"), capture_attention(nn.Linear(1, 1)):
        pass
    with capture_attention(model.unet) as maps:
        call(model, ["a bear"])
    with pytest.raises(ModelError, match=r"nothing captured at resolution 16, only at \[4, 8\]"):
        maps.mean(resolution=16)


def test_maps_of_every_call_and_sample_are_kept_if_asked(model: TextToImage) -> None:
    with capture_attention(model.unet, [1, 2], each=True) as maps:
        model.generate("a bear", seeds=[0, 1], steps=3)
    singles = maps.each()
    assert singles.shape == (3, 2, 2, 8, 8)
    assert maps.each(resolution=4).shape == (3, 2, 2, 4, 4)
    torch.testing.assert_close(singles.mean((0, 1)), maps.mean())
    with capture_attention(model.unet, [1, 2], each=True) as alone:
        model.generate("a bear", seeds=[1], steps=3)
    torch.testing.assert_close(singles[:, 1], alone.each()[:, 0], atol=1e-5, rtol=0)


def test_maps_of_calls_that_were_not_kept_or_do_not_stack_are_an_error(model: TextToImage) -> None:
    with capture_attention(model.unet, [1]) as maps:
        call(model, ["a bear"])
    with pytest.raises(ModelError, match="capture with each=True"):
        maps.each()
    with capture_attention(model.unet, [1], each=True) as maps:
        call(model, ["a bear"])
        call(model, ["a bear", "a cat"])
    with pytest.raises(ModelError, match=r"calls of \[1, 2\] samples cannot be stacked"):
        maps.each()
