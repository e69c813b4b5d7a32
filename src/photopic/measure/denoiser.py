"""Any denoiser behind one call: a model that `train diffusion` made, or a text-to-image pipeline at one prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.diffusion.model import PREDICTIONS, DiffusionModel, from_pixels, is_unconditional
from photopic.models.diffusion.process import Denoiser, Diffusion
from photopic.models.diffusion.schedules import Schedule
from photopic.models.loading import load

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage


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


def probed(model: str | Path | TextToImage, *, prompt: str = "", device: str = "cpu") -> Probed:
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
    if isinstance(model, str | Path) and _trained(Path(model)):
        if prompt:
            raise ModelError(f"prompt: expected none, {model} reads no text, found {prompt!r}; leave it out")
        trained = DiffusionModel.load(model, device)
        name = _name(Path(model))
        return Probed(name, trained.process, trained, trained.size, lambda images: from_pixels(images).to(device))
    handle = load(model, device) if isinstance(model, str | Path) else model
    process = Diffusion(Schedule.of_scheduler(handle.pipeline.scheduler), PREDICTIONS[handle.prediction_type])
    said = handle.encode_prompts(prompt)

    def denoiser(noisy: Tensor, time: Tensor) -> Tensor:
        return handle.predict(noisy, time, said[[0] * len(noisy)])

    def clean(images: Tensor) -> Tensor:
        with torch.no_grad():
            return handle.encode_images(from_pixels(images).to(handle.device, handle.dtype))

    return Probed(handle.name, process, denoiser, handle.image_size, clean)


def _trained(folder: Path) -> bool:
    return DiffusionModel.is_saved(folder) or DiffusionModel.is_saved(folder / "model") or is_unconditional(folder)


def _name(folder: Path) -> str:
    """Of the run, not of the folder in it."""
    folder = folder.absolute()
    return folder.parent.name if folder.name == "model" else folder.name
