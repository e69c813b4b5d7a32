"""The forward noising process and the ways a network can name what it predicts: epsilon, v, sample, or velocity.

Two processes behind one interface: variance preserving (`NoiseSchedule`) and the straight line of flow matching (`StraightLine`).
With ``alpha_t = sqrt(alphas_cumprod[t])`` and ``sigma_t = sqrt(1 - alphas_cumprod[t])`` a noisy latent is
``x_t = alpha_t * x_0 + sigma_t * noise`` and ``v = alpha_t * noise - sigma_t * x_0`` (Salimans & Ho, arXiv 2202.00512).
The schedule is the one the network was trained on, whatever sampler the pipeline holds: Euler's own ``add_noise``
scales differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int, Num
from torch import Tensor

Latents = Float[Tensor, "batch c h w"]
Timesteps = Int[Tensor, "*batch"]  # one timestep for all latents, or one each
Times = Num[Tensor, "*batch"]  # the same, also between two timesteps
Scales = Float[Tensor, "..."]  # (batch, 1, 1, 1)
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

    def scales(self, like: Latents, timesteps: Timesteps) -> tuple[Scales, Scales]:
        """``alpha_t`` and ``sigma_t`` in float32, shaped to multiply ``like``."""
        # (batch, 1, 1, 1)
        kept = self.alphas_cumprod.to(like.device)[timesteps.to(like.device)].float().reshape(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()  # alpha_t^2 + sigma_t^2 = 1

    def add_noise(self, latents: Latents, noise: Latents, timesteps: Timesteps) -> Latents:
        """``x_t`` for clean latents, in their dtype."""
        alpha, sigma = self.scales(latents, timesteps)
        return (alpha * latents + sigma * noise).to(latents.dtype)  # x_t = alpha x_0 + sigma e

    def target(self, latents: Latents, noise: Latents, timesteps: Timesteps) -> Latents:
        """What a perfect network of this prediction type would output."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        alpha, sigma = self.scales(latents, timesteps)
        return (alpha * noise - sigma * latents).to(latents.dtype)  # v = alpha e - sigma x_0

    def to_noise(self, prediction: Latents, noisy: Latents, timesteps: Timesteps) -> Latents:
        """The noise a prediction implies."""
        if self.prediction_type == "epsilon":
            return prediction
        alpha, sigma = self.scales(noisy, timesteps)
        if self.prediction_type == "sample":
            return ((noisy - alpha * prediction) / sigma).to(prediction.dtype)  # e = (x_t - alpha x_0) / sigma
        return (sigma * noisy + alpha * prediction).to(prediction.dtype)  # e = sigma x_t + alpha v

    def to_sample(self, prediction: Latents, noisy: Latents, timesteps: Timesteps) -> Latents:
        """The clean latents a prediction implies."""
        if self.prediction_type == "sample":
            return prediction
        alpha, sigma = self.scales(noisy, timesteps)
        if self.prediction_type == "epsilon":
            return ((noisy - sigma * prediction) / alpha).to(prediction.dtype)  # x_0 = (x_t - sigma e) / alpha
        return (alpha * noisy - sigma * prediction).to(prediction.dtype)  # x_0 = alpha x_t - sigma v


@dataclass(frozen=True)
class StraightLine:
    """Noise mixed in along a straight line, ``x_t = (1 - sigma) * x_0 + sigma * noise``, and a network that predicts velocity.

    The velocity is ``noise - x_0`` (flow matching, arXiv:2210.02747; rectified flow, arXiv:2209.03003). ``sigma`` is the timestep
    over their number, whatever the sampler's shift, as samplers shift both; where a pipeline shifts noise levels but not the
    time that its network is told, ``shift`` says by how much.

    Attributes:
        timesteps: Number of training timesteps.
        shift: m of ``sigma = m s / (1 + (m - 1) s)`` with ``s`` the timestep over their number; 1: none.

    Example:
        >>> import torch
        >>> StraightLine().add_noise(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.tensor([250])).flatten()
        tensor([0.2500])
    """

    prediction_type: ClassVar[str] = "velocity"
    timesteps: int = 1000
    shift: float = 1.0

    def sigmas(self, like: Latents, timesteps: Times) -> Scales:
        """Shares of noise in float32, shaped to multiply ``like``."""
        share = timesteps.to(like.device).float().reshape(-1, 1, 1, 1) / self.timesteps  # (batch, 1, 1, 1)
        return self.shift * share / (1 + (self.shift - 1) * share)

    def add_noise(self, latents: Latents, noise: Latents, timesteps: Times) -> Latents:
        """``x_t`` for clean latents, in their dtype."""
        sigma = self.sigmas(latents, timesteps)
        return ((1 - sigma) * latents + sigma * noise).to(latents.dtype)

    def target(self, latents: Latents, noise: Latents, timesteps: Times) -> Latents:
        """What a perfect network would output: the same velocity at every timestep."""
        return noise - latents

    def to_noise(self, prediction: Latents, noisy: Latents, timesteps: Times) -> Latents:
        """The noise a velocity implies."""
        # x_t + (1 - sigma) v = (1 - sigma) x_0 + sigma e + (1 - sigma) (e - x_0) = e
        return (noisy + (1 - self.sigmas(noisy, timesteps)) * prediction).to(prediction.dtype)

    def to_sample(self, prediction: Latents, noisy: Latents, timesteps: Times) -> Latents:
        """The clean latents a velocity implies."""
        return (noisy - self.sigmas(noisy, timesteps) * prediction).to(prediction.dtype)  # x_t - sigma v = x_0
