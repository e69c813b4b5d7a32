"""Noise levels of a schedule, and noise added by them, in the scale the scheduler keeps its latents in.

A level ``sigma`` is that of the variance-exploding scale, ``x = clean + sigma * noise``. A variance-preserving scheduler keeps
``x / sqrt(1 + sigma^2)`` instead; with ``ab = 1 / (1 + sigma^2)`` that is ``sqrt(ab) * clean + sqrt(1 - ab) * noise``. On the
straight line of flow matching ``x / (1 + sigma)`` is kept, ``(1 - s) * clean + s * noise`` with ``s = sigma / (1 + sigma)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from photopic.core.sampling.control import Step


def noise_levels(scheduler: Any) -> list[float]:
    """The level before every model call of a schedule that was set, and 0 for the end."""
    if is_straight(scheduler):
        shares = scheduler.sigmas[: len(scheduler.timesteps)].double().cpu()
        return [*(shares / (1 - shares)).tolist(), 0.0]  # 1 / 0 is inf: noise alone
    if getattr(scheduler, "sigmas", None) is not None:
        return [*scheduler.sigmas[: len(scheduler.timesteps)].tolist(), 0.0]
    kept = scheduler.alphas_cumprod.double()[scheduler.timesteps.cpu().long()]
    return [*((1 - kept) / kept).sqrt().tolist(), 0.0]  # 1 / 0 is inf: zero terminal SNR


def is_exploding(scheduler: Any) -> bool:
    """Whether a scheduler that was set keeps latents in the variance-exploding scale: it starts from more than unit noise."""
    return not is_straight(scheduler) and float(scheduler.init_noise_sigma) != 1.0


def is_straight(scheduler: Any) -> bool:
    """Whether a scheduler mixes noise in along a straight line; DPM-Solver does so by its configuration."""
    return not hasattr(scheduler, "alphas_cumprod") or bool(scheduler.config.get("use_flow_sigmas", False))


def share_of(sigma: float) -> float:
    """The share of noise on a straight line for a level of the variance-exploding scale; 1 at inf."""
    return 1.0 if math.isinf(sigma) else sigma / (1 + sigma)


def standard_noise(
    generators: Sequence[torch.Generator], like: Float[Tensor, "batch c h w"]
) -> Float[Tensor, "batch c h w"]:
    """Standard normal noise shaped as ``like``, row i drawn from generator i."""
    return randn_tensor(like.shape, generator=list(generators), device=like.device, dtype=like.dtype)


def noised(
    clean: Float[Tensor, "batch c h w"],
    noise: Float[Tensor, "batch c h w"],
    sigma: float,
    *,
    exploding: bool = False,
    straight: bool = False,
) -> Float[Tensor, "batch c h w"]:
    """Clean latents at a noise level; at 0 exactly themselves."""
    if straight:
        share = share_of(sigma)
        return (1 - share) * clean + share * noise
    if exploding:
        return clean + sigma * noise
    kept = 1 / (1 + sigma**2)  # 0 at inf
    return math.sqrt(kept) * clean + math.sqrt(1 - kept) * noise


def renoised(
    latents: Float[Tensor, "batch c h w"], noise: Float[Tensor, "batch c h w"], step: Step
) -> Float[Tensor, "batch c h w"]:
    """Latents after a step taken back to the level before it: sqrt(sigma_i^2 - sigma_(i+1)^2) noise in the exploding scale."""
    if step.variance_exploding:
        return latents + math.sqrt(max(step.sigma**2 - step.next_sigma**2, 0.0)) * noise
    if step.straight:
        before, after = share_of(step.sigma), share_of(step.next_sigma)
        kept = (1 - before) / (1 - after)  # of the signal; noise is added until its variance is before^2 again
        return kept * latents + math.sqrt(max(before**2 - (kept * after) ** 2, 0.0)) * noise
    kept = min((1 + step.next_sigma**2) / (1 + step.sigma**2), 1.0)  # the same, over sqrt(1 + sigma^2) on both sides
    return math.sqrt(kept) * latents + math.sqrt(1 - kept) * noise
