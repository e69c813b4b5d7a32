"""Noise levels of a schedule, and noise added by them, in the scale the scheduler keeps its latents in.

A level ``sigma`` is that of the variance-exploding scale, ``x = clean + sigma * noise``. A variance-preserving scheduler keeps
``x / sqrt(1 + sigma^2)`` instead; with ``ab = 1 / (1 + sigma^2)`` that is ``sqrt(ab) * clean + sqrt(1 - ab) * noise``.
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
    if getattr(scheduler, "sigmas", None) is not None:
        return [*scheduler.sigmas[: len(scheduler.timesteps)].tolist(), 0.0]
    kept = scheduler.alphas_cumprod.double()[scheduler.timesteps.cpu().long()]
    return [*((1 - kept) / kept).sqrt().tolist(), 0.0]  # 1 / 0 is inf: zero terminal SNR


def is_exploding(scheduler: Any) -> bool:
    """Whether a scheduler that was set keeps latents in the variance-exploding scale: it starts from more than unit noise."""
    return float(scheduler.init_noise_sigma) != 1.0


def standard_noise(
    generators: Sequence[torch.Generator], like: Float[Tensor, "batch c h w"]
) -> Float[Tensor, "batch c h w"]:
    """Standard normal noise shaped as ``like``, row i drawn from generator i."""
    return randn_tensor(like.shape, generator=list(generators), device=like.device, dtype=like.dtype)


def noised(
    clean: Float[Tensor, "batch c h w"], noise: Float[Tensor, "batch c h w"], sigma: float, *, exploding: bool
) -> Float[Tensor, "batch c h w"]:
    """Clean latents at a noise level; at 0 exactly themselves."""
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
    kept = min((1 + step.next_sigma**2) / (1 + step.sigma**2), 1.0)  # the same, over sqrt(1 + sigma^2) on both sides
    return math.sqrt(kept) * latents + math.sqrt(1 - kept) * noise
