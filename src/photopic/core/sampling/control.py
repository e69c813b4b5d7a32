"""One run of the denoising loop, described, and the controls that act on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.nn.attention import Place
from photopic.core.nn.attention.layers import Kind


@runtime_checkable
class Conditioned(Protocol):
    """What the loop asks of an encoded prompt; ``photopic.models.text_to_image.conditioning.Conditioning`` is one."""

    def unet_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of a UNet call; tensors have one row a sample, dictionaries may hold more of them."""


@runtime_checkable
class Joinable(Protocol):
    """Rows that are no plain tensor, such as prompts of different lengths."""

    def joined(self, other: Any) -> Any:
        """These rows and then those of another."""


@dataclass(frozen=True, eq=False)
class Step:
    """Where the loop is.

    Attributes:
        index: Number of the step, from 0.
        total: How many steps there are.
        timestep: The scheduler's, as the UNet gets it.
        sigma: Noise level of the latents before the step in the variance-exploding scale, sqrt((1 - ab) / ab) with ab the
            share of signal variance, or s / (1 - s) with s the share of noise on a straight line; inf at zero terminal SNR.
        next_sigma: Noise level after the step; 0 at the end.
        guided: Whether the UNet call of this step is doubled, the unconditional half first.
        variance_exploding: Whether the scheduler keeps latents as ``clean + sigma * noise`` (Euler, LMS, Heun); otherwise they are
            that over sqrt(1 + sigma^2) (DDIM, DDPM, DPM-Solver++).
        straight: Whether it keeps them as that over 1 + sigma, on the straight line of flow matching.
    """

    index: int
    total: int
    timestep: Tensor
    sigma: float
    next_sigma: float
    guided: bool
    variance_exploding: bool = False
    straight: bool = False


class Control:
    """Acts on one run of the sampler, never on weights: override the hooks that are needed, the others do nothing.

    Several controls are applied in the order given. Hooks of a run that is not differentiable are called without
    gradients; one that needs them turns them on with ``torch.enable_grad()``. What a control remembers of a run it forgets in
    ``start``, so that one control may be used for many runs.

    Attributes:
        repeats: How often each step is done; in between, its noise is added again (self-recurrence). Of several controls the
            largest counts.
        kinds: The attention layers that ``attention`` and ``qkv`` see: ``cross``, ``self``, or both.

    Example:
        >>> class Still(Control):
        ...     "Less guidance towards the end."
        ...     def guidance(self, conditional, unconditional, scale, step):
        ...         kept = 1 - step.index / step.total
        ...         return unconditional + (1 + (scale - 1) * kept) * (conditional - unconditional)
        >>> model.generate("a bear", seeds=[0], controls=[Still()])  # doctest: +SKIP
    """

    repeats: int = 1
    kinds: tuple[Kind, ...] = ("cross",)

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """What holds around a batch that a handle draws, from the encoding of its prompts on; nothing by default."""
        return nullcontext()

    def start(self, sampling: Sampling) -> None:
        """A run begins, forwards or backwards: forget the last one."""

    def is_guided(self, step: Step) -> bool:
        """Whether this step needs its unconditional half; False spares it, half the cost of the step.

        Asked once a step of a guided run, before its first UNet call. Where any control says False, the prediction is the
        conditional one, and ``guidance`` is not called.
        """
        return True

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
        """Attention scores Q K^T / sqrt(head_dim) before softmax, of the whole, possibly doubled batch.

        Layers of ``kinds`` are touched only if this is overridden; ``place`` says which one it is, and its kind.
        """
        return scores

    def qkv(
        self,
        query: Float[Tensor, "batch heads cells head_dim"],
        key: Float[Tensor, "batch heads tokens head_dim"],
        value: Float[Tensor, "batch heads tokens head_dim"],
        place: Place,
        step: Step,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the layers of ``kinds``, before ``attention``; in a self-attention tokens are cells.

        The number of keys and values may change. Layers are touched only if this is overridden.
        """
        return query, key, value

    def block(
        self, output: Float[Tensor, "batch cells dim"], place: Place, step: Step
    ) -> Float[Tensor, "batch cells dim"]:
        """What a transformer block of the UNet hands on: ``place.kind`` is ``block``. Touched only if overridden."""
        return output

    def guidance(
        self,
        conditional: Float[Tensor, "batch c h w"],
        unconditional: Float[Tensor, "batch c h w"],
        scale: float,
        step: Step,
    ) -> Float[Tensor, "batch c h w"] | None:
        """The prediction to use, from the two halves; None leaves it to the next control, then to classifier-free guidance.

        Only called in a guided step.
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
        schedule: What ``scheduler.set_timesteps`` is told beside the number of steps, such as ``sigmas`` and ``mu``.
        positions: For the words of a subject its token positions in the prompt of each sample; None where nobody knows the
            prompts. A control finds with it where words are read.
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
    schedule: Mapping[str, Any] = field(default_factory=dict)
    positions: Callable[[str], Sequence[Sequence[int]]] | None = None

    @property
    def guided(self) -> bool:
        """Whether there is something for guidance to lead away from."""
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
