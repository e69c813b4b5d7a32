"""The three prediction types name the same thing, on the scale the schedulers of diffusers use."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from photopic.models.text_to_image.noise_schedule import PREDICTION_TYPES, NoiseSchedule

SCHEDULER = DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
LATENTS, NOISE = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).unbind()
TIMESTEPS = torch.tensor([0, 500, 999])


def schedule(prediction_type: str) -> NoiseSchedule:
    return NoiseSchedule(SCHEDULER.alphas_cumprod, prediction_type)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_target_converts_back_to_noise_and_sample(prediction_type: str) -> None:
    this = schedule(prediction_type)
    noisy = this.add_noise(LATENTS, NOISE, TIMESTEPS)
    target = this.target(LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(this.to_noise(target, noisy, TIMESTEPS), NOISE, atol=1e-4, rtol=0)
    torch.testing.assert_close(this.to_sample(target, noisy, TIMESTEPS), LATENTS, atol=1e-4, rtol=0)


def test_noise_and_velocity_are_those_of_diffusers() -> None:
    this = schedule("v_prediction")
    assert torch.allclose(this.add_noise(LATENTS, NOISE, TIMESTEPS), SCHEDULER.add_noise(LATENTS, NOISE, TIMESTEPS))
    assert torch.allclose(
        this.target(LATENTS, NOISE, TIMESTEPS), SCHEDULER.get_velocity(LATENTS, NOISE, TIMESTEPS), atol=1e-6
    )


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_to_sample_is_what_the_sampler_takes_a_prediction_for(prediction_type: str) -> None:
    sampler = DDIMScheduler.from_config(SCHEDULER.config, prediction_type=prediction_type)
    sampler.set_timesteps(1000)
    step = sampler.step(LATENTS, 500, NOISE)
    ours = schedule(prediction_type).to_sample(LATENTS, NOISE, torch.tensor(500))
    torch.testing.assert_close(ours, step.pred_original_sample)


def test_half_precision_stays_half_precision() -> None:
    noisy = schedule("epsilon").add_noise(LATENTS.half(), NOISE.half(), TIMESTEPS)
    assert noisy.dtype == torch.float16
    torch.testing.assert_close(noisy.float(), SCHEDULER.add_noise(LATENTS, NOISE, TIMESTEPS), atol=5e-3, rtol=0)
