"""A prompt for each region: the whole prompt everywhere is no change, beyond its region a layer's output stays, counts must fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.nn.attention import announce_guidance, cross_attention
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.regional_prompts import RegionalPrompts
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline

WHOLE = "a bear left of a cat"
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


def told(*prompts: str | None) -> RegionalPrompts:
    """Of the left half, and the right one where two are given."""
    regions = zip(("bear", "cat"), (LEFT, RIGHT), prompts, strict=False)
    return RegionalPrompts(Layout(tuple(Region(words, box, prompt=prompt) for words, box, prompt in regions)))


def drawn(model: TextToImage, *controls: RegionalPrompts, guidance: float = 4.0) -> np.ndarray:
    return model.generate(WHOLE, seeds=[1, 2], steps=2, guidance=guidance, controls=controls)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_whole_prompt_in_every_region_changes_nothing_and_another_does(model: TextToImage, guidance: float) -> None:
    plain = drawn(model, guidance=guidance)
    assert np.abs(plain.astype(int) - drawn(model, told(WHOLE, WHOLE), guidance=guidance)).max() <= 1
    other = drawn(model, told("a bear", "a red guitar"), guidance=guidance)
    assert (plain != other).any() and (drawn(model, guidance=guidance) == plain).all()  # and it leaves no trace


def test_beyond_its_region_and_in_the_unconditional_half_a_layers_output_stays(model: TextToImage) -> None:
    control = told("a red guitar", None)
    said = model.encode_prompts(["", WHOLE]).hidden  # the unconditional half first
    latents, seen = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1), []
    name, layer = next(iter(cross_attention(model.unet).items()))

    def call() -> None:
        handle = layer.register_forward_hook(lambda *given: seen.append(given[-1]))  # after the control's own
        model.unet(latents, 10, encoder_hidden_states=said)
        handle.remove()

    with torch.no_grad(), announce_guidance(True):
        call()
        with control.applied(model):
            call()
    plain, mixed = seen  # (2, cells, dim)
    side = int(plain.shape[1] ** 0.5)
    changed = (plain != mixed).any(-1).view(2, side, side)
    assert not changed[0].any() and not changed[1, :, side // 2 :].any() and changed[1, :, : side // 2].all(), name


def test_a_layout_without_own_prompts_is_refused() -> None:
    with pytest.raises(DataError, match="expected a region with a prompt of its own, found none"):
        told(None, None)
