"""One prediction of the network with every hook before it, in it and after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from photopic.core.nn.attention import KINDS, Place, Rewrite, announce_guidance, rewrite_attention, rewrite_blocks
from photopic.core.sampling.control import Conditioned, Control, Joinable, Sampling, Step
from photopic.core.sampling.finite import check_finite


@runtime_checkable
class Rewritable(Protocol):
    """A network that is no UNet, and says itself how its attention to text is rewritten."""

    def rewriting(self, rewrite: Rewrite) -> AbstractContextManager[None]:
        """Calls inside hand their scores to a function."""


def is_guided(sampling: Sampling, step: Step) -> bool:
    """Whether a step has its unconditional half: the run is guided, and no control spares it."""
    return sampling.guided and all([control.is_guided(step) for control in sampling.controls])  # all are asked


def predict(sampling: Sampling, scheduler: Any, latents: Float[Tensor, "batch c h w"], step: Step) -> Tensor:
    """The guided prediction for latents in the scheduler's scale, in the model's prediction type.

    Raises:
        ModelError: If the network's prediction is not finite.
    """
    rows = _told(sampling, step)
    scaled = getattr(scheduler, "scale_model_input", None)  # those of flow matching scale nothing
    given = latents if scaled is None else scaled(latents, step.timestep)
    for control in sampling.controls:
        given = control.model_input(given, step)
    given = _doubled(given, step)

    def call(given: Tensor) -> Tensor:
        with ExitStack() as stack:  # inside the checkpointed function, so that it acts in the backward pass too
            stack.enter_context(announce_guidance(step.guided))
            _enter_hooks(stack, sampling, step)
            return sampling.unet(given, step.timestep, **rows, **sampling.unet_kwargs, return_dict=False)[0]

    recompute = sampling.checkpoint and sampling.differentiable
    prediction = checkpoint(call, given, use_reentrant=False) if recompute else call(given)
    check_finite(prediction, f"sampling: the prediction of step {step.index + 1} of {step.total}", sampling.unet)
    if step.guided:
        unconditional, conditional = prediction.chunk(2)
        prediction = _guided(sampling, conditional, unconditional, step)
    for control in sampling.controls:
        prediction = control.prediction(prediction, step)
    return prediction


def block_outputs(
    sampling: Sampling, given: Float[Tensor, "batch c h w"], step: Step
) -> dict[str, Float[Tensor, "rows cells dim"]]:
    """What the transformer blocks hand on for other latents with the prompts of a step, by name; no control acts.

    Args:
        sampling: The run.
        given: In the network's scale, one row a sample.
        step: Where the run is; a guided one has two rows a sample, the unconditional ones first.
    """
    found: dict[str, Tensor] = {}

    def keep(output: Tensor, place: Place) -> Tensor:
        found[place.name] = output
        return output

    rows = _told(sampling, step)
    with announce_guidance(step.guided), rewrite_blocks(sampling.unet, keep):
        sampling.unet(_doubled(given, step), step.timestep, **rows, **sampling.unet_kwargs, return_dict=False)
    return found


def _told(sampling: Sampling, step: Step) -> dict[str, Any]:
    """What the network is told of the prompts: in a guided step twice as many rows, the unconditional ones first."""
    conditioning: Conditioned = sampling.conditioning
    for control in sampling.controls:
        conditioning = control.embeddings(conditioning, step)
    rows = conditioning.unet_kwargs()
    if not step.guided or sampling.unconditional is None:
        return rows
    doubled: dict[str, Any] = _stacked(sampling.unconditional.unet_kwargs(), rows)
    return doubled


def _doubled(given: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "rows c h w"]:
    """Latents as the network gets them: in a guided step twice, for both halves."""
    return torch.cat([given] * 2) if step.guided else given


def _guided(sampling: Sampling, conditional: Tensor, unconditional: Tensor, step: Step) -> Tensor:
    for control in sampling.controls:
        prediction = control.guidance(conditional, unconditional, sampling.scale, step)
        if prediction is not None:
            return prediction
    return unconditional + sampling.scale * (conditional - unconditional)  # Ho & Salimans, arXiv 2207.12598


def _enter_hooks(stack: ExitStack, sampling: Sampling, step: Step) -> None:
    """Put the hooks that controls override into the network: layers that nobody looks into are left alone."""
    for kind in KINDS:
        looking = [control for control in sampling.controls if kind in control.kinds]
        scores = _chained([control.attention for control in looking if _overrides(control, "attention")], step)
        qkv = _chained([control.qkv for control in looking if _overrides(control, "qkv")], step)
        if scores and isinstance(sampling.unet, Rewritable):
            # it shows the rows that are told the prompts alone, so a control meets a step without its other half
            alone = [control.attention for control in looking if _overrides(control, "attention")]
            stack.enter_context(sampling.unet.rewriting(partial(_through, alone, replace(step, guided=False))))
        elif scores or qkv:
            stack.enter_context(rewrite_attention(sampling.unet, scores, qkv=qkv, kinds=(kind,)))
    if block := _chained([control.block for control in sampling.controls if _overrides(control, "block")], step):
        stack.enter_context(rewrite_blocks(sampling.unet, block))


def _overrides(control: Control, hook: str) -> bool:
    return getattr(type(control), hook) is not getattr(Control, hook)


def _chained(hooks: list[Callable[..., Any]], step: Step) -> Callable[..., Any] | None:
    """One function of what is changed and where, which hands it through the hooks in order; None of none."""
    return partial(_through, hooks, step) if hooks else None


def _through(hooks: list[Callable[..., Any]], step: Step, *given: Any) -> Any:
    *changed, place = given
    for hook in hooks:
        found = hook(*changed, place, step)
        changed = list(found) if isinstance(found, tuple) else [found]
    return tuple(changed) if len(changed) > 1 else changed[0]


def _stacked(first: Any, second: Any) -> Any:
    """Two sets of UNet arguments as one of a doubled batch."""
    if isinstance(first, dict):
        return {name: _stacked(value, second[name]) for name, value in first.items()}
    if isinstance(first, Joinable):
        return first.joined(second)
    return torch.cat([first, second]) if isinstance(first, Tensor) else first
