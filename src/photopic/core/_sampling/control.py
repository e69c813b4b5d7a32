"""What acts on one run of the denoising loop, and what it is told about where the loop is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from photopic.core.attention import Place

if TYPE_CHECKING:
    from photopic.core._sampling.run import Sampling


@runtime_checkable
class Conditioned(Protocol):
    """What the loop asks of an encoded prompt; ``photopic.models.conditioning.Conditioning`` is one."""

    def unet_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of a UNet call; tensors have one row a sample, dictionaries may hold more of them."""


@dataclass(frozen=True, eq=False)
class Step:
    """Where the loop is.

    Attributes:
        index: Number of the step, from 0.
        total: How many steps there are.
        timestep: The scheduler's, as the UNet gets it.
        sigma: Noise level of the latents before the step in the variance-exploding scale, sqrt((1 - ab) / ab) with ab the
            share of signal variance; inf at zero terminal SNR.
        next_sigma: Noise level after the step; 0 at the end.
        guided: Whether UNet calls are doubled, the unconditional half first.
        variance_exploding: Whether the scheduler keeps latents as ``clean + sigma * noise`` (Euler, LMS, Heun); otherwise they are
            that over sqrt(1 + sigma^2) (DDIM, DDPM, DPM-Solver++).
    """

    index: int
    total: int
    timestep: Tensor
    sigma: float
    next_sigma: float
    guided: bool
    variance_exploding: bool = False


class Control:
    """Acts on one run of the sampler, never on weights: override the hooks that are needed, the others do nothing.

    Several controls are applied in the order given. Hooks of a run that is not differentiable are called without
    gradients; one that needs them turns them on with ``torch.enable_grad()``.

    Attributes:
        repeats: How often each step is done; in between, its noise is added again (self-recurrence). Of several controls the
            largest counts.

    Example:
        >>> class Still(Control):
        ...     "Less guidance towards the end."
        ...     def guidance(self, conditional, unconditional, scale, step):
        ...         kept = 1 - step.index / step.total
        ...         return unconditional + (1 + (scale - 1) * kept) * (conditional - unconditional)
        >>> model.generate("a bear", seeds=[0], controls=[Still()])  # doctest: +SKIP
    """

    repeats: int = 1

    def start_noise(self, noise: Float[Tensor, "batch c h w"], sampling: Sampling) -> Float[Tensor, "batch c h w"]:
        """The standard normal noise to start from."""
        return noise

    def embeddings(self, conditioning: Any, step: Step) -> Any:
        """What the UNet is told about the prompts: the conditional rows only; the unconditional ones are kept apart."""
        return conditioning

    def model_input(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """What the UNet is given, after the scheduler's scaling and before guidance doubles it."""
        return latents

    def attention(
        self, scores: Float[Tensor, "batch heads cells tokens"], place: Place, step: Step
    ) -> Float[Tensor, "batch heads cells tokens"]:
        """Cross-attention scores Q K^T / sqrt(head_dim) before softmax, of the whole, possibly doubled batch.

        Layers are touched only if this is overridden.
        """
        return scores

    def guidance(
        self,
        conditional: Float[Tensor, "batch c h w"],
        unconditional: Float[Tensor, "batch c h w"],
        scale: float,
        step: Step,
    ) -> Float[Tensor, "batch c h w"] | None:
        """The prediction to use, from the two halves; None leaves it to the next control, then to classifier-free guidance.

        Only called in a guided run.
        """
        return None

    def prediction(self, prediction: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """The guided prediction, in the model's prediction type."""
        return prediction

    def latents(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """The latents after the scheduler's step, in the scheduler's scale."""
        return latents

    def end(self, latents: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """The finished latents."""
        return latents
