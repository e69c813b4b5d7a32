"""A transformer called as the sampling loop calls a UNet: maps of latents, the scheduler's time, one conditioning, a prediction."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from photopic.core.nn.attention import JointCall, Place, Rewrite, is_doubled, is_watched, joint_attention
from photopic.core.nn.attention.layers import plain
from photopic.core.sampling import Control, Step
from photopic.models.text_to_image.families import Family
from photopic.models.text_to_image.latents import from_network, patch_of, to_network
from photopic.models.text_to_image.transformer_conditioning import TransformerConditioning


class Denoiser(nn.Module):
    """The transformer of a pipeline behind one interface.

    Args:
        transformer: As the pipeline holds it.
        family: How it is called.
        second: The network of the unconditional half, where it has one of its own.
        shift: m by which the times that it is asked for are shifted, and those that the network is told are not: of a share of
            ``m s / (1 + (m - 1) s)`` it is told s.

    Example:
        >>> denoiser(latents, torch.tensor(500.0), conditioning)[0].shape == latents.shape  # doctest: +SKIP
        True
    """

    def __init__(self, transformer: nn.Module, family: Family, second: nn.Module | None = None, shift: float = 1.0):
        super().__init__()
        self.transformer, self.family, self.second, self.shift = transformer, family, second, shift
        self._latents, self._time = argument_names(transformer)
        self._rewrites: list[Rewrite] = []

    @property
    def _patch(self) -> int:
        """Side of a token in cells of the latents."""
        return patch_of(self.transformer, self.family)

    @cached_property
    def _layers(self) -> tuple[str, ...]:
        """Where the picture reads text: what holds the matrices of its keys."""
        patterns = [
            keys.key.removesuffix(".weight").rpartition(".")[0] for keys in self.family.text_keys if not keys.refines
        ]
        names = [name for name, _ in plain(self.transformer).named_modules()]
        return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))

    def forward(
        self,
        latents: Float[Tensor, "batch c h w"],
        timesteps: Num[Tensor, "*batch"],
        conditioning: TransformerConditioning,
        return_dict: bool = False,
    ) -> tuple[Float[Tensor, "batch c h w"]]:
        """Velocity, or what the scheduler's configuration says, for latents at the scheduler's timesteps of 0 to 1000."""
        timesteps = timesteps.to(latents.device).expand(len(latents))
        if self.shift != 1:
            timesteps = timesteps / (self.shift - (self.shift - 1) * timesteps / 1000)
        looked_into = bool(self._rewrites) or is_watched()
        found: dict[int, Tensor] = {}
        for numbers, arguments in conditioning.batches(alone=looked_into and self.family.ragged):
            with self._attention(latents, numbers) if looked_into else nullcontext():
                predicted = self._call(latents[numbers], timesteps[numbers], arguments)
            found |= dict(zip(numbers, predicted, strict=True))
        return (torch.stack([found[number] for number in range(len(latents))]),)

    @contextmanager
    def rewriting(self, rewrite: Rewrite) -> Iterator[None]:
        """Calls inside hand scores of pictures at text to a function, of the rows that are told the prompts; see ``JointCall``."""
        self._rewrites.append(rewrite)
        try:
            yield
        finally:
            self._rewrites.pop()

    @contextmanager
    def _attention(self, latents: Tensor, numbers: Sequence[int]) -> Iterator[None]:
        """What looks into one call: rows ``numbers`` of the batch, of which the unconditional half comes first."""
        first = len(latents) // 2 if is_doubled() else 0
        own = tuple(place for place, number in enumerate(numbers) if number >= first)
        if not own:
            yield
            return
        height, width = (side // self._patch for side in latents.shape[-2:])
        rows = tuple(numbers[place] - first for place in own)
        family = self.family
        call = JointCall(height, width, family.image_first, family.crossed, family.padded, own, rows, self._layers)
        with joint_attention(self.transformer, call, self._rewritten if self._rewrites else None):
            yield

    def _rewritten(self, scores: Tensor, place: Place) -> Tensor:
        for rewrite in self._rewrites:
            scores = rewrite(scores, place)
        return scores

    def _call(self, latents: Tensor, timesteps: Tensor, arguments: dict[str, Any]) -> Tensor:
        family = self.family
        dtype = cast(
            torch.dtype, plain(self.transformer).dtype
        )  # that it computes in, whatever its weights are kept in
        told = {name: value for name, value in arguments.items() if name not in OURS}
        prefix = arguments.get(PREFIX, 0)
        told[self._latents] = to_network(latents.to(dtype), family.layout, prefix)
        told[self._time] = told_time(timesteps, family, arguments.get(TIME_DTYPE, torch.float32))
        asked = self.transformer if self.second is None or not arguments.get(SECOND) else self.second
        output = asked(**told, return_dict=False)[0]
        predicted = from_network(output, family.layout, *latents.shape[-2:])
        if family.halved:
            predicted = predicted.chunk(2, dim=1)[0]  # (batch, 2 c, h, w) -> (batch, c, h, w): the rest is a variance
        return -predicted if family.sign < 0 else predicted


def denoiser_of(pipeline: Any, family: Family, shift: float = 1.0) -> Denoiser:
    """A pipeline's network, or both of them; ``shift`` is that of ``Denoiser``."""
    second = getattr(pipeline, family.second) if family.second else None
    return Denoiser(pipeline.transformer, family, second, shift)


# beside a row's arguments: the number format in which the pipeline gives the time, how many tokens stand before those of the
# picture in what the network is given, and whether it is the second network that is called
TIME_DTYPE, PREFIX, SECOND = OURS = "photopic_time_dtype", "photopic_prefix", "photopic_second"


def argument_names(transformer: nn.Module) -> tuple[str, str]:
    """What a transformer calls its latents and its time."""
    parameters = list(inspect.signature(type(plain(transformer)).forward).parameters)
    return parameters[1], "t" if "t" in parameters else "timestep"


def told_time(
    timesteps: Num[Tensor, " batch"], family: Family, dtype: torch.dtype = torch.float32
) -> Num[Tensor, " batch"]:
    """The time that the transformer is told for the scheduler's, by the family's line, rounded where the pipeline rounds."""
    slope, start = family.time
    given = timesteps if family.rounded_late else timesteps.to(dtype)
    if abs(slope) == 1:
        return (given + start if start else given).to(dtype)
    scaled = given / 1000  # divided, not multiplied by 0.001, as the pipelines do
    return (start - scaled if slope < 0 else scaled + start).to(dtype)


class FamilyGuidance(Control):
    """Guidance as a family's pipeline does it: its order of the sum, and its renormalisation.

    Args:
        family: Whose.

    Example:
        >>> from photopic.models.text_to_image.families import FAMILIES
        >>> c, u = torch.full((1, 1, 2, 2), 3.0), torch.ones(1, 1, 2, 2)
        >>> step = Step(0, 1, torch.tensor(500.0), 1.0, 0.0, guided=True)
        >>> FamilyGuidance(FAMILIES["ZImagePipeline"]).guidance(c, u, 2.0, step).unique()  # 3 + (2 - 1) * (3 - 1)
        tensor([5.])
    """

    def __init__(self, family: Family):
        self.family = family

    def guidance(
        self,
        conditional: Float[Tensor, "batch c h w"],
        unconditional: Float[Tensor, "batch c h w"],
        scale: float,
        step: Step,
    ) -> Float[Tensor, "batch c h w"]:
        """The guided prediction; ``scale`` counts as everywhere: 1 is the conditional one."""
        own = scale - self.family.extra
        start = conditional if self.family.extra else unconditional
        guided = start + own * (conditional - unconditional)
        if self.family.renormalised == "no":
            return guided
        if self.family.renormalised == "per_row":  # of the picture: the last axis of a map
            return guided * (_length(conditional) / _length(guided))
        height, width = guided.shape[-2:]
        kept, tokens = (to_network(each, self.family.layout) for each in (conditional, guided))
        share = _length(kept) / _length(tokens)  # (batch, tokens, 1)
        if self.family.renormalised == "at_most_per_token":
            share = share.clamp(0, 1)
        return from_network(tokens * share, self.family.layout, height, width)


def _length(of: Tensor) -> Tensor:
    return torch.norm(of, dim=-1, keepdim=True)
