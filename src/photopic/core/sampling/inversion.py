"""Inversion: the start noise that leads to given latents, by DDIM or by Euler along the straight line of flow matching."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling.control import Sampled, Sampling, Step
from photopic.core.sampling.finite import check_finite
from photopic.core.sampling.levels import noise_levels, share_of
from photopic.core.sampling.predict import is_guided, predict


def invert_events(
    sampling: Sampling, latents: Float[Tensor, "batch c h w"], *, refinements: int = 0
) -> Iterator[Sampled]:
    """Walk the schedule of a deterministic sampler backwards, from clean latents to the noise that leads to them.

    A step is undone with the prediction at the level it started from, which needs the very latents looked for. The
    prediction at the latents at hand stands in for it (Song et al., arXiv 2010.02502); each refinement computes it
    again at the latents just found, a fixed-point iteration that shrinks the error where it converges.

    Args:
        sampling: The run that will draw from the noise: DDIM with ``eta`` 0, or Euler of flow matching. Hooks of its controls that
            make a prediction act here too. Guidance makes the error larger, so invert without it where you can.
        latents: Clean latents.
        refinements: UNet calls a step beyond the first.

    Yields:
        One event a step, ``step.next_sigma`` being the level it came from; the latents of the last event are the noise.

    Raises:
        ModelError: If the scheduler is another, or not deterministic, or a step ends in numbers that are not finite.
    """
    scheduler = copy.deepcopy(sampling.scheduler)
    euler = isinstance(scheduler, FlowMatchEulerDiscreteScheduler) and not scheduler.config.stochastic_sampling
    if not euler and (not isinstance(scheduler, DDIMScheduler) or sampling.eta != 0):
        raise ModelError(
            f"inversion: expected DDIMScheduler with eta 0, or FlowMatchEulerDiscreteScheduler, found {type(scheduler).__name__} "
            f"with eta {sampling.eta}; only deterministic samplers of one call a step are walked backwards"
        )
    scheduler.set_timesteps(sampling.steps, device=latents.device, **sampling.schedule)
    levels = noise_levels(scheduler)
    total = len(scheduler.timesteps)
    for control in sampling.controls:
        control.start(sampling)
    for index in reversed(range(total)):
        step = Step(
            index, total, scheduler.timesteps[index], levels[index], levels[index + 1], sampling.guided, straight=euler
        )
        step = replace(step, guided=is_guided(sampling, step))
        with torch.set_grad_enabled(sampling.differentiable):
            found = latents
            for _ in range(1 + refinements):
                found = undone(scheduler, latents, found, predict(sampling, scheduler, found, step), step)
            latents = found
        check_finite(latents, f"inversion: latents after step {total - index} of {total}")
        yield Sampled(step, latents)


def invert(
    sampling: Sampling, latents: Float[Tensor, "batch c h w"], *, refinements: int = 0
) -> Float[Tensor, "batch c h w"]:
    """The start noise that leads to given latents; takes the arguments of ``invert_events``.

    Example:
        >>> noise = invert(sampling, latents, refinements=5)  # doctest: +SKIP
        >>> sample(sampling, noise)  # doctest: +SKIP
    """
    for event in invert_events(sampling, latents, refinements=refinements):
        latents = event.latents
    return latents


def undone(scheduler: Any, after: Tensor, before: Tensor, prediction: Tensor, step: Step) -> Tensor:
    """The latents before a step, by the latents after it and a prediction that was made at ``before``."""
    if step.straight:  # Euler: after = before + (s' - s) v, with s and s' the shares of noise
        return after + (share_of(step.sigma) - share_of(step.next_sigma)) * prediction
    timestep = int(step.timestep)
    previous = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    kept = scheduler.alphas_cumprod[timestep].double().item()
    reached = (scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod).double().item()
    # DDIM: after = sqrt(reached) * clean + sqrt(1 - reached) * noise, with before = sqrt(kept) * clean + sqrt(1 - kept) * noise
    noise = _noise(scheduler.config.prediction_type, prediction, before, kept)
    clean = (after - (1 - reached) ** 0.5 * noise) / reached**0.5
    return kept**0.5 * clean + (1 - kept) ** 0.5 * noise


def _noise(prediction_type: str, prediction: Tensor, latents: Tensor, kept: float) -> Tensor:
    if prediction_type == "epsilon":
        return prediction
    if prediction_type == "sample":
        return (latents - kept**0.5 * prediction) / (1 - kept) ** 0.5
    return kept**0.5 * prediction + (1 - kept) ** 0.5 * latents  # v = sqrt(ab) noise - sqrt(1 - ab) clean
