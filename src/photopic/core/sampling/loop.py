"""The denoising loop: one run of a scheduler, step by step, with the hooks of every control in their places."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling.control import Sampled, Sampling, Step, steps_from_image
from photopic.core.sampling.finite import check_finite
from photopic.core.sampling.levels import (
    is_exploding,
    is_straight,
    noise_levels,
    noised,
    renoised,
    standard_noise,
)
from photopic.core.sampling.predict import is_guided, predict


def sample_events(sampling: Sampling, noise: Float[Tensor, "batch c h w"]) -> Iterator[Sampled]:
    """Denoise step by step.

    Args:
        sampling: The run; with an ``image`` it starts where ``strength`` says, otherwise from noise alone.
        noise: Standard normal, one row a sample; `standard_noise` draws it.

    Yields:
        One event a step; the latents of the last are the result. Between events other runs may use the same model and
        scheduler.

    Raises:
        ModelError: If generators and samples differ in number, ``strength`` leaves no step, steps are to be repeated with
            a scheduler that makes several calls a step, or a step ends in numbers that are not finite.
    """
    scheduler = copy.deepcopy(sampling.scheduler)  # it keeps the state of a run
    scheduler.set_timesteps(sampling.steps, device=noise.device, **sampling.schedule)
    first = _first(sampling, scheduler)
    repeats = max([1, *(control.repeats for control in sampling.controls)])
    _check(sampling, scheduler, len(noise), repeats)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps, levels = scheduler.timesteps[first:], noise_levels(scheduler)[first:]
    with torch.set_grad_enabled(sampling.differentiable):
        latents = _start(sampling, scheduler, noise, timesteps, levels)
    for index, timestep in enumerate(timesteps):
        step = Step(
            index=index,
            total=len(timesteps),
            timestep=timestep,
            sigma=levels[index],
            next_sigma=levels[index + 1],
            guided=sampling.guided,
            variance_exploding=is_exploding(scheduler),
            straight=is_straight(scheduler),
        )
        step = replace(step, guided=is_guided(sampling, step))
        with torch.set_grad_enabled(sampling.differentiable):
            latents = _repeated(sampling, scheduler, latents, step, repeats)
            if index == len(timesteps) - 1:
                for control in sampling.controls:
                    latents = control.end(latents)
        check_finite(latents, f"sampling: latents after step {index + 1} of {len(timesteps)}")
        yield Sampled(step, latents)


def sample(sampling: Sampling, noise: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    """Denoise to the end; takes the arguments of ``sample_events``.

    Returns:
        Clean latents, in the UNet's scaling.

    Raises:
        ModelError: As ``sample_events`` does.

    Example:
        >>> generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        >>> noise = standard_noise(generators, torch.empty(2, 4, 16, 16))
        >>> prompts = model.encode_prompts(["a bear", "a cat"])  # doctest: +SKIP
        >>> sample(Sampling(model.unet, model.pipeline.scheduler, prompts, generators), noise)  # doctest: +SKIP
    """
    for event in sample_events(sampling, noise):
        latents = event.latents
    return latents


def _check(sampling: Sampling, scheduler: Any, samples: int, repeats: int) -> None:
    if len(sampling.generators) != samples:
        raise ModelError(
            f"sampling: {len(sampling.generators)} generators for {samples} samples; give one for each sample"
        )
    if repeats > 1 and scheduler.order > 1:
        raise ModelError(
            f"sampling: {type(scheduler).__name__} makes {scheduler.order} calls a step, which cannot be repeated one by one; "
            "use Euler, DDIM or DPM-Solver++"
        )


def _first(sampling: Sampling, scheduler: Any) -> int:
    """The model call to begin with: image-to-image leaves out the noisiest ones."""
    if sampling.image is None:
        return 0
    done = steps_from_image(sampling.steps, sampling.strength)
    return (sampling.steps - done) * scheduler.order


def _start(sampling: Sampling, scheduler: Any, noise: Tensor, timesteps: Tensor, levels: list[float]) -> Tensor:
    for control in sampling.controls:
        control.start(sampling)
    for control in sampling.controls:
        noise = control.start_noise(noise, sampling)
    if is_straight(scheduler):  # of which most have no add_noise
        return noise if sampling.image is None else noised(sampling.image, noise, levels[0], straight=True)
    if sampling.image is None:
        return noise * scheduler.init_noise_sigma
    return scheduler.add_noise(sampling.image, noise, timesteps[:1])


def _repeated(sampling: Sampling, scheduler: Any, latents: Tensor, step: Step, repeats: int) -> Tensor:
    """A step done ``repeats`` times, with its noise added again in between."""
    for _ in range(repeats - 1):
        before = _state(scheduler)
        latents = _stepped(sampling, scheduler, latents, step)
        latents = renoised(latents, standard_noise(sampling.generators, latents), step)
        vars(scheduler).update(before)
    return _stepped(sampling, scheduler, latents, step)


def _state(scheduler: Any) -> dict[str, Any]:
    """What a step changes: multistep schedulers shift lists of earlier predictions in place."""
    return {name: list(value) if isinstance(value, list) else value for name, value in vars(scheduler).items()}


def _stepped(sampling: Sampling, scheduler: Any, latents: Tensor, step: Step) -> Tensor:
    prediction = predict(sampling, scheduler, latents, step)
    accepted = inspect.signature(scheduler.step).parameters
    options = {"eta": sampling.eta, "generator": list(sampling.generators)}
    options = {name: value for name, value in options.items() if name in accepted}
    latents = scheduler.step(prediction, step.timestep, latents, **options, return_dict=False)[0]
    for control in sampling.controls:
        latents = control.latents(latents, step)
    return latents
