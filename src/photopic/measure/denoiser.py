"""Any denoiser behind one call: a model that `train diffusion` made, or a text-to-image pipeline at one prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.data.pixels import from_pixels
from photopic.models.diffusion.loading import PREDICTIONS
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.process import Denoiser, Diffusion
from photopic.models.diffusion.schedules import Schedule
from photopic.models.loading import load
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.noise_schedule import StraightLine


@dataclass(frozen=True, eq=False)
class Probed:
    """What a probe needs.

    Attributes:
        name: Of the model.
        process: That it was trained on.
        denoiser: The network.
        size: Side of the pictures it draws, in pixels.
        clean: From pictures of that size, 8 bits, to what the network reads: pixels or latents.
    """

    name: str
    process: Diffusion
    denoiser: Denoiser
    size: int
    clean: Callable[[UInt8[Tensor, "n size size 3"]], Float[Tensor, "n c h w"]]


def probed(model: str | Path | TextToImage | DiffusionModel, *, prompt: str = "", device: str = "cpu") -> Probed:
    """Open a denoiser.

    Args:
        model: A folder that ``photopic train diffusion`` wrote (the run or its ``model/``), an unconditional pipeline of
            diffusers, a text-to-image handle, or what ``photopic.load`` takes.
        prompt: What a text-to-image model is told.
        device: Where to compute; of a handle, where it is.

    Raises:
        ModelError: If there is no such model, it cannot be read, or it reads no text and a prompt is given.

    Example:
        >>> probed("emoji-diffusion").size
        64
    """
    handle = load(model, device) if isinstance(model, str | Path) else model
    if isinstance(handle, DiffusionModel):
        if prompt:
            raise ModelError(f"prompt: expected none, {model} reads no text, found {prompt!r}; leave it out")
        place = handle.device
        return Probed(handle.name, handle.process, handle, handle.size, lambda images: from_pixels(images).to(place))
    if not isinstance(handle, TextToImage):
        raise ModelError(f"{handle.name}: expected a denoiser, found {handle.described}; name a text-to-image pipeline")
    said, line = handle.encode_prompts(prompt), handle.schedule

    def told(noisy: Tensor, time: Tensor) -> Tensor:
        return handle.predict(noisy, time, said[[0] * len(noisy)])

    if isinstance(line, StraightLine):
        process, denoiser = of_straight_line(line, told)
    else:
        process = Diffusion(Schedule.of_scheduler(handle.pipeline.scheduler), PREDICTIONS[handle.prediction_type])
        denoiser = told

    def clean(images: Tensor) -> Tensor:
        with torch.no_grad():
            return handle.encode_images(from_pixels(images).to(handle.device, handle.dtype))

    return Probed(handle.name, process, denoiser, handle.image_size, clean)


def of_straight_line(line: StraightLine, velocity: Denoiser) -> tuple[Diffusion, Denoiser]:
    """The variance-preserving process and its denoiser that a flow and its velocity are, up to a factor of the noisy picture.

    ``(1 - s) x_0 + s e`` over ``sqrt((1 - s)^2 + s^2)`` is ``alpha x_0 + sigma e`` with ``alpha^2 + sigma^2 = 1``. Timestep i is
    the flow's time i + 1: noise is never quite gone in a process, and alone at the end of a flow. Clean pictures are predicted.

    Args:
        line: How the flow mixes noise in.
        velocity: The network: pictures on the line and times above 0 to ``noise - picture``.
    """
    share = (
        line.sigmas(torch.zeros(1, 1, 1, 1), torch.arange(1, line.timesteps + 1)).double().flatten()
    )  # s, (timesteps,)
    length = ((1 - share).square() + share.square()).sqrt()

    def clean(noisy: Tensor, time: Tensor) -> Tensor:
        given = noisy * length.to(noisy)[time].reshape(-1, 1, 1, 1)
        return line.to_sample(velocity(given, time + 1), given, time + 1)

    return Diffusion(Schedule((1 - share) / length), "sample"), clean
