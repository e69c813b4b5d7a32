"""One denoising loop over diffusers schedulers, with hooks for everything that steers a picture while it is drawn."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from photopic.core._sampling.control import Conditioned, Control, Step
from photopic.core._sampling.run import Sampled, Sampling

__all__ = ["Conditioned", "Control", "Sampled", "Sampling", "Step", "sample", "sample_events"]


def sample_events(sampling: Sampling, noise: Float[Tensor, "batch c h w"]) -> Iterator[Sampled]:
    """Denoise step by step.

    Args:
        sampling: The run.
        noise: Standard normal start noise.

    Yields:
        One event a step; the latents of the last are the result.
    """
    raise NotImplementedError


def sample(sampling: Sampling, noise: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    """Denoise to the end; takes the arguments of ``sample_events``.

    Returns:
        Clean latents, in the UNet's scaling.
    """
    for event in sample_events(sampling, noise):
        latents = event.latents
    return latents
