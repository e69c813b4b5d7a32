"""How a transformer pipeline draws: its own encoding, start noise and schedule, taken down, and photopic's loop from there."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial, reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import TokenResidual
from photopic.core.errors import ModelError
from photopic.core.sampling import Control, Sampling
from photopic.models.text_to_image.capture import Recorded, record, taken_by
from photopic.models.text_to_image.checks import check_scheduler
from photopic.models.text_to_image.denoiser import (
    PREFIX,
    SECOND,
    TIME_DTYPE,
    FamilyGuidance,
    argument_names,
    denoiser_of,
)
from photopic.models.text_to_image.drawing import Drawing, course
from photopic.models.text_to_image.families import Family
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.latents import decode, encode, from_network, latent_shape, multiple_of
from photopic.models.text_to_image.measured import ones_like_prediction
from photopic.models.text_to_image.schedulers import check_steps, flow_scheduler, scheduler_named, with_shift
from photopic.models.text_to_image.transformer_conditioning import TransformerConditioning, rows_of
from photopic.models.text_to_image.words import with_all_vectors

UNCONDITIONAL = "unconditional"
ALL_LOOKING = ("attention", "qkv", "block")
IN_THE_NETWORK = ("qkv", "block")  # hooks of a control that look into a UNet


@dataclass(frozen=True, eq=False)
class Captured:
    """What a pipeline does with some prompts.

    Attributes:
        conditional: What it tells its transformer of them.
        unconditional: And of what guidance leads away from; None where it does not guide.
        noise: That it starts from.
        schedule: What it tells its scheduler beside the number of steps.
    """

    conditional: TransformerConditioning
    unconditional: TransformerConditioning | None
    noise: Float[Tensor, "batch c h w"]
    schedule: Mapping[str, Any]


def capture(
    pipeline: Any,
    family: Family,
    prompts: Sequence[str],
    size: tuple[int, int],
    *,
    generators: Sequence[torch.Generator],
    guidance: float | None = None,
    negative: Sequence[str] | None = None,
    steps: int = 2,  # some shifts are not defined for one
    scheduler: Any = None,
) -> Captured:
    """Run the pipeline up to its first step and keep what it told its transformer.

    Args:
        pipeline: Of a known family.
        family: Its row.
        prompts: One or more.
        size: Height and width of the pictures.
        generators: One a prompt; its start noise is drawn from them.
        guidance: In the usual count, 1 being none; None: none, and the pipeline's own number where the network is given one.
        negative: What guidance leads away from, one a prompt.
        steps: Of the schedule.
        scheduler: In the place of the pipeline's.

    Raises:
        ModelError: If the pipeline refuses, or calls its transformer otherwise than its row says.
    """
    guided = guidance is not None and guidance > 1 and family.unconditional != "none"
    if guided and family.guider:  # each half in a call of its own
        plain = partial(capture, pipeline, family, size=size, steps=steps, scheduler=scheduler)
        first = plain(prompts, generators=generators)
        others = [torch.Generator().manual_seed(0) for _ in prompts]
        said = plain(list(negative or [""] * len(prompts)), generators=others).conditional.rows
        return replace(first, unconditional=TransformerConditioning(said, (UNCONDITIONAL,) * len(said)))
    groups = [[i] for i in range(len(prompts))] if family.alone else [list(range(len(prompts)))]
    answer, parts = ones_like_prediction(family), []
    for group in groups:
        chosen = None if negative is None else [negative[i] for i in group]
        asked = [prompts[i] for i in group]
        arguments = call_arguments(pipeline, family, asked, size, guidance=guidance, negative=chosen, steps=steps)
        arguments["generator"] = [generators[i] for i in group]
        found = record(pipeline, arguments, answer=answer, scheduler=scheduler, networks=family.networks)
        parts.append(_captured(found, pipeline, family, len(group), size, guided))
    return reduce(_joined, parts)


def _joined(first: Captured, other: Captured) -> Captured:
    unconditional = first.unconditional
    if unconditional is not None and other.unconditional is not None:
        unconditional = unconditional.joined(other.unconditional)
    joined = first.conditional.joined(other.conditional)
    return replace(first, conditional=joined, unconditional=unconditional, noise=torch.cat([first.noise, other.noise]))


def _said(pipeline: Any, prompts: Sequence[str]) -> list[str]:
    """Prompts with new words of several vectors in full, where the pipeline does not see to that."""
    if hasattr(pipeline, "maybe_convert_prompt"):
        return list(prompts)
    tokenizers = [part for name, part in pipeline.components.items() if name.startswith("tokenizer") and part]
    return [with_all_vectors(each, tokenizers) for each in prompts]


def call_arguments(
    pipeline: Any,
    family: Family,
    prompts: Sequence[str],
    size: tuple[int, int],
    *,
    guidance: float | None,
    negative: Sequence[str] | None = None,
    steps: int = 2,  # some shifts are not defined for one
) -> dict[str, Any]:
    """Arguments of the pipeline's own call, always by name: several have an image in the first place."""
    arguments = {
        "prompt": _said(pipeline, prompts),  # a list of its own: some pipelines write into it
        "height": size[0],
        "width": size[1],
        "num_inference_steps": steps,
        "output_type": "latent",
        **family.options,
    }
    if family.unconditional == "none":  # the number is the network's; 1 and less are numbers too
        return arguments if guidance is None else arguments | {family.scale: guidance}
    if family.guider:  # a part of the pipeline, which is away while it is recorded
        return arguments
    guided = guidance is not None and guidance > 1
    arguments[family.scale] = (guidance if guided and guidance is not None else 1.0) - family.extra
    if guided and negative is None and family.negative is not None:
        negative = [family.negative] * len(prompts)
    if guided and negative is not None:
        negative = _said(pipeline, negative)
        arguments["negative_prompt"] = negative[0] if family.alone else list(negative)
    return arguments


def _captured(
    found: Recorded, pipeline: Any, family: Family, count: int, size: tuple[int, int], guided: bool
) -> Captured:
    in_two = family.calls == "two"
    expected = 2 if family.second or (guided and in_two) else 1  # a second network is called whether it counts or not
    if len(found.calls) != expected:
        raise ModelError(
            f"{type(pipeline).__name__}: expected {expected} calls of its transformer a step, found {len(found.calls)}"
        )
    _, height, width = latent_shape(pipeline, family, *size)
    rows = 2 * count if guided and not in_two else count
    halves = [_rows(pipeline, call.arguments, rows, height * width) for call in found.calls]
    if guided and not in_two:  # one call of both: which half comes first goes with the form of the sum
        first, second = halves[0][:count], halves[0][count:]
        halves = [first, second] if family.extra else [second, first]
    conditional, unconditional = TransformerConditioning(tuple(halves[0]), ("",) * count), None
    if guided:
        # a word a row, so that halves which the pipeline calls apart are called apart here, and round alike
        told = tuple(row | {SECOND: True} for row in halves[1]) if family.second else tuple(halves[1])
        unconditional = TransformerConditioning(told, (UNCONDITIONAL if in_two else "",) * count)
    noise = found.samples[0]
    noise = from_network(noise, family.layout, height, width) if noise.ndim == 3 else noise
    return Captured(conditional, unconditional, noise, found.schedule)


def _rows(pipeline: Any, arguments: Mapping[str, Any], count: int, cells: int) -> list[dict[str, Any]]:
    """What a transformer was told beside latents and time, a row at a time."""
    latents, time = argument_names(pipeline.transformer)
    told = {name: value for name, value in arguments.items() if name not in (latents, time)}
    given = arguments[latents]
    # tokens of the text before those of the picture: (batch, prefix + cells, c)
    before = given.shape[1] - cells if isinstance(given, Tensor) and given.ndim == 3 else 0
    return [row | {TIME_DTYPE: arguments[time].dtype, PREFIX: max(before, 0)} for row in rows_of(told, count)]


class TransformerDrawer:
    """Draws with a transformer.

    Args:
        model: A ``TransformerTextToImage``.
    """

    def __init__(self, model: Any):
        self.model, self.pipeline, self.family = model, model.pipeline, model.family

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        return self.model.image_size, self.model.image_size

    @property
    def factor(self) -> int:
        """Pixels a latent cell."""
        return self.model.image_size // latent_shape(self.pipeline, self.family, *self.size)[1]

    @property
    def multiple(self) -> int:
        """Of the sides of a picture, in pixels: whole patches of latent cells."""
        return multiple_of(self.pipeline, self.family)

    def check(self, drawing: Drawing) -> None:
        """Refuse controls that look into a UNet, and negative prompts that would do nothing."""
        kind, name = type(self.pipeline).__name__, self.model.name
        for control in drawing.controls:
            changed = {hook for hook in ALL_LOOKING if getattr(type(control), hook) is not getattr(Control, hook)}
            if changed & set(IN_THE_NETWORK) or (changed and "self" in control.kinds):
                raise ModelError(
                    f"{name}: {type(control).__name__} looks into the layers of a UNet, {kind} has a transformer; leave it out, "
                    "or load a Stable Diffusion 1.x, 2.x or XL pipeline"
                )
        if drawing.config.negative_prompt is not None and self.family.unconditional != "negative":
            raise ModelError(
                f"{name}: {kind} is guided by a number in its network, a negative prompt has no effect; leave it out"
                if self.family.unconditional == "none"
                else f"{name}: {kind} leads away from the empty prompt alone; leave the negative prompt out"
            )

    def scheduler(self, config: GenerateConfig) -> Any:
        """The one asked for, by name or itself, or the pipeline's."""
        own, asked = self.pipeline.scheduler, config.scheduler
        if self.family.predicts == "velocity":
            return flow_scheduler(asked or own, own, config.steps, self.model.name)
        found = scheduler_named(asked, own) if isinstance(asked, str) else asked or own
        check_scheduler(found, self.model.name)
        check_steps(found, config.steps)
        return found

    def sampling(
        self, drawing: Drawing, rows: slice, scheduler: Any, generators: list[torch.Generator]
    ) -> tuple[Sampling, Float[Tensor, "batch c h w"]]:
        """The run that draws a batch, and the noise it starts from."""
        model, config, prompts = self.model, drawing.config, drawing.prompts[rows]
        check_residuals(model)
        negative = config.negative_prompt
        found = capture(
            self.pipeline,
            self.family,
            prompts,
            drawing.size(self.size),
            generators=generators,
            guidance=config.guidance,
            negative=[negative] * len(prompts) if isinstance(negative, str) else negative and list(negative)[rows],
            steps=config.steps,
            scheduler=scheduler,
        )
        noise = model.edits.start_noise(found.noise) if model.edits.has_start_noise else found.noise
        scheduler, schedule = told_scheduler(scheduler, found.schedule, self.pipeline.scheduler)
        # a scheduler that makes its times from its noise levels shifts both
        shift = self.model.schedule.shift if self.family.shifted_time and "timesteps" not in schedule else 1.0
        options = course(self, drawing, rows, noise)
        options["controls"] += (FamilyGuidance(self.family),)  # the last word, where no other control guides
        sampling = Sampling(
            denoiser_of(self.pipeline, self.family, shift),
            scheduler,
            found.conditional,
            generators,
            found.unconditional,
            steps=config.steps,
            scale=config.guidance,
            schedule=schedule,
            positions=self._positions(prompts),
            **options,
        )
        return sampling, noise

    def _positions(self, prompts: Sequence[str]) -> Callable[[str], list[list[int]]]:
        """Where each prompt says a word; tokens are followed once a prompt, however many words are asked for."""
        find = {prompt: cache(partial(self.model.followed, prompt)) for prompt in prompts}
        return lambda words: [self.model.token_positions(prompt, words, find[prompt]) for prompt in prompts]

    def encode_images(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c h2 w2"]:
        """Latents of images."""
        return encode(self.pipeline, self.family, images)

    def finished(
        self, latents: Float[Tensor, "batch c h w"], generators: Sequence[torch.Generator]
    ) -> tuple[Any, list[bool]]:
        """As the stock pipeline finishes; none of these has a safety checker."""
        images = decode(self.pipeline, self.family, latents)
        return self.pipeline.image_processor.postprocess(images, output_type="np"), [False] * len(latents)


def check_residuals(model: Any) -> None:
    """Refuse residuals at words where nothing reads what they are added to.

    Raises:
        ModelError: Names the edit.
    """
    for each in model.edits.list() if model.family.by_layers else ():
        if each.is_on and each.edit.of(TokenResidual):
            raise ModelError(
                f"{model.name}: {type(model.pipeline).__name__} calls the layers of its text encoder one by one, so that a token "
                f"residual is added to nothing it reads; take the edit {each.name} away"
            )


def told_scheduler(scheduler: Any, schedule: Mapping[str, Any], own: Any) -> tuple[Any, dict[str, Any]]:
    """A scheduler and what it is told: a class that takes no ``mu`` gets the shift that ``mu`` stands for."""
    taken = taken_by(scheduler)
    dynamic = own.config.get("use_dynamic_shifting", False)
    if dynamic and "mu" in schedule and "mu" not in taken:
        mu = float(schedule["mu"])
        linear = own.config.get("time_shift_type", "exponential") == "linear"
        scheduler = with_shift(scheduler, mu if linear else math.exp(mu))
    kept = {name: value for name, value in schedule.items() if name in taken}
    if not scheduler.config.get("use_dynamic_shifting", False):
        kept.pop("mu", None)
    return copy.deepcopy(scheduler), kept
