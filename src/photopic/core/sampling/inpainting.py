"""Inpainting: a known region that is put back after every step."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.sampling.control import Control, Step
from photopic.core.sampling.levels import noised


class Inpainting(Control):
    """Keeps what is known: after every step its latents, noised to the level reached, replace what was drawn there.

    At the end the level is 0, so that the known region is exactly the given one. No gradient or weight is involved, and any
    text-to-image model will do. After RePaint (Lugmayr et al., arXiv 2201.09865), with one noise for all steps; set ``repeats``
    for its resampling.

    Args:
        known: Clean latents.
        drawn: Where to draw; elsewhere the latents are known.
        noise: Standard normal, the one the run starts from.
        repeats: How often each step is done, so that what is drawn can settle with what is known.

    Example:
        >>> known, noise = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
        >>> control = Inpainting(known, torch.zeros(1, 1, 8, 8, dtype=torch.bool), noise)
        >>> torch.equal(control.latents(noise, Step(9, 10, torch.tensor(1), 0.03, 0.0, guided=False)), known)
        True
    """

    def __init__(
        self,
        known: Float[Tensor, "batch c h w"],
        drawn: Bool[Tensor, "#batch #c h w"],
        noise: Float[Tensor, "batch c h w"],
        *,
        repeats: int = 1,
    ):
        self.known, self.drawn, self.noise, self.repeats = known, drawn, noise, repeats

    def latents(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """What is drawn where it is to be, and what is known elsewhere."""
        scale = {"exploding": step.variance_exploding, "straight": step.straight}
        known = noised(self.known, self.noise, step.next_sigma, **scale)
        return torch.where(self.drawn, latents, known.to(latents.dtype))
