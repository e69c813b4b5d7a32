"""One run of the denoising loop, described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core._sampling.control import Conditioned, Control, Step
from photopic.core.errors import ModelError


def steps_from_image(steps: int, strength: float) -> int:
    """Steps done of a schedule that begins at an image, rounded as diffusers does.

    Raises:
        ModelError: If there is none.

    Example:
        >>> steps_from_image(30, 0.8)
        24
    """
    done = min(int(steps * strength), steps)
    if done < 1:
        raise ModelError(f"sampling: strength {strength:g} of {steps} steps leaves none to do; raise one of them")
    return done


@dataclass(frozen=True, eq=False)
class Sampling:
    """One run of the denoising loop, described; ``sample`` and ``sample_events`` carry it out.

    Attributes:
        unet: A diffusers UNet, or anything called like one.
        scheduler: A diffusers scheduler; a run works on a copy of it.
        conditioning: The encoded prompts, one row a sample.
        generators: One for each sample, on the CPU: ancestral schedulers and re-noising draw from them.
        unconditional: What guidance leads away from, one row a sample; None: no guidance, and half the cost.
        steps: Denoising steps of the whole schedule.
        scale: Guidance scale.
        eta: Share of DDIM's noise, 0 to 1; other schedulers ignore it.
        controls: Applied in this order.
        unet_kwargs: Passed to every UNet call besides the conditioning.
        image: Clean latents to start from, noised; None: start from noise alone.
        strength: Share of the schedule done when there is an image, 0 to 1.
        differentiable: Whether gradients flow from the result to the start noise, the conditioning and parameters.
        checkpoint: Whether UNet calls are computed again for the gradient instead of kept in memory.
    """

    unet: Any
    scheduler: Any
    conditioning: Conditioned
    generators: Sequence[torch.Generator]
    unconditional: Conditioned | None = None
    steps: int = 30
    scale: float = 5.0
    eta: float = 0.0
    controls: Sequence[Control] = ()
    unet_kwargs: Mapping[str, Any] = field(default_factory=dict)
    image: Float[Tensor, "batch c h w"] | None = None
    strength: float = 1.0
    differentiable: bool = False
    checkpoint: bool = False

    @property
    def guided(self) -> bool:
        """Whether UNet calls are doubled, the unconditional half first."""
        return self.unconditional is not None


@dataclass(frozen=True, eq=False)
class Sampled:
    """One event of the loop: a step is done.

    Attributes:
        step: Which.
        latents: As they are after it; those of the last event are the result.
    """

    step: Step
    latents: Float[Tensor, "batch c h w"]
