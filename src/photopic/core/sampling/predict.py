"""One prediction of the network with every hook before it, in it and after it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from photopic.core.nn.attention import Place, announce_guidance, rewrite_attention
from photopic.core.sampling.control import Conditioned, Control, Sampling, Step


def predict(sampling: Sampling, scheduler: Any, latents: Float[Tensor, "batch c h w"], step: Step) -> Tensor:
    """The guided prediction for latents in the scheduler's scale, in the model's prediction type."""
    conditioning: Conditioned = sampling.conditioning
    for control in sampling.controls:
        conditioning = control.embeddings(conditioning, step)
    given = scheduler.scale_model_input(latents, step.timestep)
    for control in sampling.controls:
        given = control.model_input(given, step)
    rows = conditioning.unet_kwargs()
    if sampling.unconditional is not None:
        given = torch.cat([given] * 2)
        rows = _stacked(sampling.unconditional.unet_kwargs(), rows)

    def call(given: Tensor) -> Tensor:
        with ExitStack() as stack:  # inside the checkpointed function, so that it acts in the backward pass too
            stack.enter_context(announce_guidance(step.guided))
            _rewrite_attention(stack, sampling, step)
            return sampling.unet(given, step.timestep, **rows, **sampling.unet_kwargs, return_dict=False)[0]

    recompute = sampling.checkpoint and sampling.differentiable
    prediction = checkpoint(call, given, use_reentrant=False) if recompute else call(given)
    if step.guided:
        unconditional, conditional = prediction.chunk(2)
        prediction = _guided(sampling, conditional, unconditional, step)
    for control in sampling.controls:
        prediction = control.prediction(prediction, step)
    return prediction


def _guided(sampling: Sampling, conditional: Tensor, unconditional: Tensor, step: Step) -> Tensor:
    for control in sampling.controls:
        prediction = control.guidance(conditional, unconditional, sampling.scale, step)
        if prediction is not None:
            return prediction
    return unconditional + sampling.scale * (conditional - unconditional)  # Ho & Salimans, arXiv 2207.12598


def _rewrite_attention(stack: ExitStack, sampling: Sampling, step: Step) -> None:
    acting = [control for control in sampling.controls if type(control).attention is not Control.attention]
    if not acting:
        return

    def rewrite(scores: Tensor, place: Place) -> Tensor:
        for control in acting:
            scores = control.attention(scores, place, step)
        return scores

    stack.enter_context(rewrite_attention(sampling.unet, rewrite))


def _stacked(first: Any, second: Any) -> Any:
    """Two sets of UNet arguments as one of a doubled batch."""
    if isinstance(first, dict):
        return {name: _stacked(value, second[name]) for name, value in first.items()}
    return torch.cat([first, second]) if isinstance(first, Tensor) else first
