"""Inpainting: a known region that is put back after every step, or that the network is told."""

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


class MaskedPicture(Control):
    """Tells a network of nine channels what is known: the mask and the latents of the masked picture, after the noisy latents.

    The last of the controls, because those after it would meet nine channels. As Stable Diffusion's inpainting models read it
    (Rombach et al., arXiv 2112.10752).

    Args:
        drawn: 1 where to draw, 0 elsewhere.
        known: Clean latents of the picture whose pixels to draw are grey.

    Example:
        >>> control = MaskedPicture(torch.ones(1, 1, 8, 8), torch.zeros(1, 4, 8, 8))
        >>> control.model_input(torch.zeros(1, 4, 8, 8), Step(0, 10, torch.tensor(1), 1.0, 0.0, guided=False)).shape
        torch.Size([1, 9, 8, 8])
    """

    def __init__(self, drawn: Float[Tensor, "#batch 1 h w"], known: Float[Tensor, "batch c h w"]):
        self.told = torch.cat([drawn.to(known).expand(len(known), -1, -1, -1), known], 1)  # (batch, 1 + c, h, w)

    def model_input(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch channels h w"]:
        """The latents and what is known."""
        return torch.cat([latents, self.told.to(latents)], 1)
