"""What cannot come out right is refused by name: numbers that are not finite, steps a scheduler cannot do; words in any writing."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from photopic.core.errors import DataError, ModelError
from photopic.locate.attention import AttentionConfig, attention
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.words import spans_of, words_of
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2


def broken(change: Callable[[Any], object], build: Callable[[], Any] = tiny_pipeline) -> TextToImage:
    pipeline = build()
    with torch.no_grad():
        change(pipeline)
    return TextToImage(pipeline, "broken")


def narrow(pipeline: Any) -> None:
    pipeline.vae.decoder.conv_in.weight.mul_(1e5)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.to(torch.float16)


def lost(path: str) -> Callable[[Any], object]:
    def change(pipeline: Any) -> None:
        part, _, rest = path.partition(".")
        getattr(pipeline, part).get_parameter(rest).view(-1)[0] = torch.nan

    return change


@pytest.mark.parametrize(
    ("change", "build", "reason"),
    [
        (
            lost("unet.conv_out.weight"),
            tiny_pipeline,
            "prediction of step 1 of 2.*weight conv_out.weight of UNet2D.*load",
        ),
        (lost("vae.decoder.conv_in.weight"), tiny_pipeline, "vae: the decoded images.*weight decoder.conv_in.weight"),
        (lost("vae.decoder.conv_in.weight"), tiny_sdxl_pipeline, "vae: the decoded images.*weight decoder.conv_in"),
        (lost("text_encoder.final_layer_norm.weight"), tiny_pipeline, "text encoder: the encoded prompts.*final_layer"),
        (narrow, tiny_pipeline, "vae: the decoded images.*float16 is too narrow here: load .* dtype=torch.float32"),
        (
            lambda pipe: pipe.unet.conv_out.weight.mul_(1e38),
            tiny_pipeline,
            "sampling: .* of 2.*check the model's weights",
        ),
    ],
)
def test_numbers_that_are_not_finite_end_in_an_error_with_the_part_or_the_step(
    change: Callable[[Any], object], build: Callable[[], Any], reason: str
) -> None:
    model = broken(change, build)
    with pytest.raises(ModelError, match=reason):
        model.generate("a bear", seeds=[0], steps=2)


def test_maps_of_such_numbers_are_refused_and_guidance_that_overflows_names_its_step() -> None:
    with pytest.raises(ModelError, match="prediction of step 1 of 1"):
        attention(broken(lost("unet.conv_out.weight")), "a bear", ["bear"], config=AttentionConfig(steps=1))
    with pytest.raises(ModelError, match=r"sampling: .* step [12] of 2.*lower the guidance"):
        broken(lambda pipe: None).generate("a bear", seeds=[0], steps=2, guidance=3e38)
    for value in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="guidance: expected a finite number"):
            broken(lambda pipe: None).generate("a bear", seeds=[0], steps=2, guidance=value)


def test_pictures_to_start_from_are_encoded_to_finite_numbers() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ModelError, match=r"vae: the encoded images.*encoder.conv_in.weight"):
        broken(lost("vae.encoder.conv_in.weight")).generate("a bear", seeds=[0], steps=2, image=picture)


# --- steps


@pytest.mark.parametrize(
    ("steps", "scheduler", "reason"),
    [
        (1000, None, r"DDIMScheduler cannot do 1000: its timesteps would leave .* 0 to 999; 999 would do"),
        (1000, "ddpm", r"DDPMScheduler cannot do 1000: .*; 999 would do"),
        (1001, None, r"DDIMScheduler cannot do 1001: the model was trained on 1000 timesteps; 999 would do"),
        (10**12, "euler", "the model was trained on 1000 timesteps; 1000 would do"),
        (2, "prk", r"PNDMScheduler cannot do 2: .*; [3-9] would do"),
    ],
)
def test_steps_a_scheduler_cannot_do_are_refused_before_the_run(steps: int, scheduler: str | None, reason: str) -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    named: Any = PNDMScheduler.from_config(model.pipeline.scheduler.config) if scheduler == "prk" else scheduler
    with pytest.raises(ModelError, match=f"steps: .*{reason}"):
        model.generate_events("a bear", seeds=[0], steps=steps, scheduler=named)


# --- words


@pytest.mark.parametrize("between", [" ", "  ", "\u00a0", "\t", "\n", "\u3000"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_are_found_whatever_white_space_and_unicode_form(between: str, form: Any) -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    prompt = unicodedata.normalize(form, f"a café on a Red{between}background")
    plain = model.token_positions("a café on a red background", "red background")
    assert model.token_positions(prompt, "red background") == plain
    for word in ("café", unicodedata.normalize("NFD", "café")):
        assert model.token_positions(prompt, word) == model.token_positions("a café on a red background", "café")
    assert words_of(prompt) == ("a", "café", "on", "Red", "background")


def test_only_whole_words_are_found() -> None:
    assert spans_of("desks and sks", "sks") == [(10, 13)]
    assert spans_of("a cafe\u0301", "cafe") == []  # another letter
    assert spans_of("a <mine>  bear", "<mine> bear") == [(2, 14)]
    assert spans_of("a bear", " ") == []
