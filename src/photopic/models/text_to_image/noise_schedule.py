"""The forward noising process and the three ways a network can name what it predicts: epsilon, v, sample.

With ``alpha_t = sqrt(alphas_cumprod[t])`` and ``sigma_t = sqrt(1 - alphas_cumprod[t])`` a noisy latent is
``x_t = alpha_t * x_0 + sigma_t * noise`` and ``v = alpha_t * noise - sigma_t * x_0`` (Salimans & Ho, arXiv 2202.00512).
The schedule is the one the network was trained on, whatever sampler the pipeline holds: Euler's own ``add_noise``
scales differently.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class NoiseSchedule:
    """The training schedule of a diffusion model.

    Attributes:
        alphas_cumprod: Share of signal variance left at every training timestep, 1 to 0, float32.
        prediction_type: One of ``PREDICTION_TYPES``.

    Example:
        >>> import torch
        >>> schedule = NoiseSchedule(torch.tensor([0.64]), "v_prediction")
        >>> schedule.add_noise(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.tensor([0])).flatten()  # 0.8 + 0.6
        tensor([1.4000])
    """

    alphas_cumprod: Float[Tensor, " timesteps"]
    prediction_type: str

    def scales(
        self, like: Float[Tensor, "batch c h w"], timesteps: Int[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """``alpha_t`` and ``sigma_t`` in float32, shaped to multiply ``like``."""
        # (batch, 1, 1, 1)
        kept = self.alphas_cumprod.to(like.device)[timesteps.to(like.device)].float().reshape(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()  # alpha_t^2 + sigma_t^2 = 1

    def add_noise(
        self,
        latents: Float[Tensor, "batch c h w"],
        noise: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """``x_t`` for clean latents, in their dtype."""
        alpha, sigma = self.scales(latents, timesteps)
        return (alpha * latents + sigma * noise).to(latents.dtype)  # x_t = alpha x_0 + sigma e

    def target(
        self,
        latents: Float[Tensor, "batch c h w"],
        noise: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """What a perfect network of this prediction type would output."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        alpha, sigma = self.scales(latents, timesteps)
        return (alpha * noise - sigma * latents).to(latents.dtype)  # v = alpha e - sigma x_0

    def to_noise(
        self,
        prediction: Float[Tensor, "batch c h w"],
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """The noise a prediction implies."""
        if self.prediction_type == "epsilon":
            return prediction
        alpha, sigma = self.scales(noisy, timesteps)
        if self.prediction_type == "sample":
            return ((noisy - alpha * prediction) / sigma).to(prediction.dtype)  # e = (x_t - alpha x_0) / sigma
        return (sigma * noisy + alpha * prediction).to(prediction.dtype)  # e = sigma x_t + alpha v

    def to_sample(
        self,
        prediction: Float[Tensor, "batch c h w"],
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """The clean latents a prediction implies."""
        if self.prediction_type == "sample":
            return prediction
        alpha, sigma = self.scales(noisy, timesteps)
        if self.prediction_type == "epsilon":
            return ((noisy - sigma * prediction) / alpha).to(prediction.dtype)  # x_0 = (x_t - sigma e) / alpha
        return (alpha * noisy - sigma * prediction).to(prediction.dtype)  # x_0 = alpha x_t - sigma v
