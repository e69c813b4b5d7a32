"""Noise schedules: how much of the signal is left at every timestep, in float64.

With ``alpha_t`` and ``sigma_t = sqrt(1 - alpha_t^2)`` a noisy sample is ``alpha_t * x_0 + sigma_t * noise`` (variance preserving).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.diffusion._checks import DIFFUSERS_NAMES, PREDICTIONS

KINDS = ("linear", "scaled-linear", "quadratic", "cosine")


@dataclass(frozen=True, eq=False)
class Schedule:
    """A schedule of T timesteps, 0 the least noisy.

    Attributes:
        alphas: Factor of the signal at every timestep, 1 to 0, not rising.

    Raises:
        ModelError: If a factor lies outside 0 to 1 or rises, or the first is 0 or 1.

    Example:
        >>> round(Schedule.of_kind("linear").sigmas[0].item(), 6)  # the first beta is 1e-4
        0.01
    """

    alphas: Float64[Tensor, " timesteps"]

    def __post_init__(self) -> None:
        alphas = self.alphas
        inside = bool(alphas.isfinite().all()) and bool(((alphas >= 0) & (alphas <= 1)).all())
        if not len(alphas) or not inside or bool((alphas.diff() > 0).any()) or not 0 < float(alphas[0]) < 1:
            raise ModelError(
                "schedule: expected factors of the signal from 0 to 1 that never rise and start between, found "
                f"{alphas[:3].tolist()} ... {alphas[-1:].tolist()}"
            )

    @classmethod
    def of_kind(
        cls,
        kind: str = "linear",
        timesteps: int = 1000,
        *,
        first: float = 1e-4,
        last: float = 0.02,
        zero_terminal_snr: bool = False,
    ) -> Schedule:
        """A schedule of the literature.

        Args:
            kind: ``linear`` in beta (Ho et al., arXiv 2006.11239), ``scaled-linear`` in the root of beta (Stable Diffusion),
                ``quadratic`` in the timestep, ``cosine`` with offset 0.008 (Nichol & Dhariwal, arXiv 2102.09672).
            timesteps: How many.
            first: The first beta; ``cosine`` has none.
            last: The last beta.
            zero_terminal_snr: Rescale so that nothing of the signal is left at the end (Lin et al., arXiv 2305.08891).

        Raises:
            ModelError: If there is no such kind.
        """
        if kind not in KINDS:
            raise ModelError(f"schedule: expected one of {', '.join(KINDS)}, found {kind!r}")
        along = torch.linspace(0, 1, timesteps, dtype=torch.float64)
        if kind == "cosine":
            at = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
            kept = ((at + 0.008) / 1.008 * math.pi / 2).cos().square()  # alpha_t^2, equation 17 of Nichol & Dhariwal
            # clipped as published, so that the last step divides by no zero
            betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
        elif kind == "scaled-linear":
            betas = (first**0.5 + along * (last**0.5 - first**0.5)).square()
        else:
            betas = first + (along if kind == "linear" else along.square()) * (last - first)
        alphas = (1 - betas).cumprod(0).sqrt()  # alpha_t^2 = prod (1 - beta_s)
        if zero_terminal_snr:
            # algorithm 1 of Lin et al.: shift to 0, scale so that the first stays
            alphas = (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])
        return cls(alphas)

    @classmethod
    def of_scheduler(cls, scheduler: Any) -> Schedule:
        """That of a diffusers scheduler with ``alphas_cumprod``.

        Raises:
            ModelError: If it has none.
        """
        kept = getattr(scheduler, "alphas_cumprod", None)
        if kept is None:
            raise ModelError(f"{type(scheduler).__name__}: has no alphas_cumprod; use DDPM, DDIM or DPM-Solver")
        return cls(kept.double().sqrt())

    def scheduler(self, kind: str = "DDIMScheduler", prediction: str = "epsilon") -> Any:
        """A diffusers scheduler of this schedule, unclipped, ending at clean samples.

        Args:
            kind: Class name, such as ``DDPMScheduler`` or ``DPMSolverMultistepScheduler``.
            prediction: What the network predicts.

        Raises:
            ModelError: If there is no such prediction.
        """
        import diffusers

        if prediction not in PREDICTIONS:
            raise ModelError(f"prediction: expected one of {', '.join(PREDICTIONS)}, found {prediction!r}")
        kept = self.alphas.square()
        # the inverse: alpha_t^2 / alpha_(t-1)^2 = 1 - beta_t
        betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        options = {} if kind.startswith("DPM") else {"clip_sample": False}
        return getattr(diffusers, kind)(
            num_train_timesteps=len(kept),
            trained_betas=betas.numpy(),
            prediction_type=DIFFUSERS_NAMES[prediction],
            **options,
        )

    @cached_property
    def sigmas(self) -> Float64[Tensor, " timesteps"]:
        """Standard deviation of the noise at every timestep."""
        return (1 - self.alphas.square()).sqrt()

    def __len__(self) -> int:
        return len(self.alphas)
