"""The denoising loop equals the stock pipelines bit for bit; every hook acts where it says; samples do not depend on their batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
)
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import (
    Control,
    Inpainting,
    Sampling,
    Step,
    invert,
    noised,
    sample,
    sample_events,
    standard_noise,
)
from photopic.models.text_to_image import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2

SCHEDULERS: dict[str, tuple[type, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-karras": (EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpm++": (DPMSolverMultistepScheduler, {}),
    "dpm++-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "lms": (LMSDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}
ANCESTRAL = ("ddpm", "euler-ancestral", "dpm++-sde")
PIPELINES: dict[str, Callable[[], Any]] = {
    "sd1": tiny_pipeline,
    "sd2": lambda: tiny_pipeline("v_prediction"),
    "sdxl": tiny_sdxl_pipeline,
}
STEPS = 5


def with_scheduler(pipeline: Any, name: str) -> Any:
    kind, options = SCHEDULERS[name]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    return pipeline


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run_of(model: TextToImage, prompts: list[str], seeds: Sequence[int], **options: Any) -> tuple[Sampling, Tensor]:
    """A run of the loop and the noise it starts from; guided by the empty prompt unless ``scale`` is 1."""
    drawing = generators(seeds)
    shape = torch.empty(len(seeds), 4, 8, 8, dtype=model.dtype)
    options = {"scale": 4.0, "steps": STEPS} | options
    unconditional = None
    if options["scale"] > 1:
        unconditional = model.encode_prompts([""] * len(prompts))
        if unconditional.pooled is not None:  # SDXL's own way with an empty negative prompt
            zeros = (torch.zeros_like(unconditional.hidden), torch.zeros_like(unconditional.pooled))
            unconditional = type(unconditional)(*zeros, unconditional.time_ids)
    conditioning = model.encode_prompts(prompts)
    noise = standard_noise(drawing, shape)
    return Sampling(model.unet, model.pipeline.scheduler, conditioning, drawing, unconditional, **options), noise


@pytest.fixture(scope="module", params=PIPELINES)
def model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(PIPELINES[request.param](), request.param)


@pytest.fixture(scope="module")
def sd() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_controls_the_stock_pipeline(model: TextToImage, name: str, scale: float) -> None:
    with_scheduler(model.pipeline, name)
    prompts, seeds = ["a bear", "a cat on a red background"], [3, 4]
    stock = model.pipeline(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        generator=generators(seeds),
        output_type="latent",
    ).images
    assert torch.equal(sample(*run_of(model, prompts, seeds, scale=scale)), stock)
