"""Pictures from prompts: what ``TextToImage.generate`` does, through the one denoising loop of ``photopic.core.sampling``.

Prompts are encoded by the pipeline, and its VAE, watermark and safety checker finish the pictures, so that without controls they
are those of the stock pipeline, bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.events import Event
from photopic.core.sampling import (
    Control,
    Inpainting,
    Sampling,
    sample_events,
    steps_from_image,
)
from photopic.data.pixels import from_pixels
from photopic.models.text_to_image.checks import check_request
from photopic.models.text_to_image.generate_config import GenerateConfig

STRENGTH = 0.8  # of image-to-image; a region is drawn anew by default


@dataclass(frozen=True)
class Generated:
    """One finished batch of ``generate_events``.

    Attributes:
        images: The batch, RGB.
        done: Images finished so far, this batch included.
        total: Images asked for.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Drawing:
    """What to draw: the arguments of ``TextToImage.generate_events``, one prompt and one seed a picture."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    config: GenerateConfig
    controls: Sequence[Control] = ()
    image: UInt8[np.ndarray, "..."] | None = None
    mask: Bool[np.ndarray, "h w"] | None = None

    @property
    def strength(self) -> float:
        """Share of the steps done from the image."""
        if self.config.strength is not None:
            return self.config.strength
        return STRENGTH if self.mask is None else 1.0

    def size(self, own: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the pictures, given those the model draws where nobody asks for others."""
        return self.config.height or own[0], self.config.width or own[1]


@runtime_checkable
class Drawer(Protocol):
    """How one kind of pipeline draws: what differs between networks, behind the same loop."""

    model: Any

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""

    @property
    def factor(self) -> int:
        """Pixels a latent cell, on each side."""

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be multiples of, in pixels."""

    def check(self, drawing: Drawing) -> None:
        """Refuse at once what this pipeline cannot draw."""

    def scheduler(self, config: GenerateConfig) -> Any:
        """The one to draw with."""

    def sampling(
        self, drawing: Drawing, rows: slice, scheduler: Any, generators: list[torch.Generator]
    ) -> tuple[Sampling, Float[Tensor, "batch c h w"]]:
        """The run that draws a batch, and the noise it starts from."""

    def encode_images(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c h2 w2"]:
        """Latents of images."""

    def finished(
        self, latents: Float[Tensor, "batch c h w"], generators: Sequence[torch.Generator]
    ) -> tuple[Any, list[bool]]:
        """Pictures of the last latents, (n, h, w, 3) in 0 to 1, and for each whether it was blanked."""


def draw(drawer: Drawer, drawing: Drawing) -> Iterator[Event[Generated]]:
    """Draw batch by batch.

    Args:
        drawer: Of the model.
        drawing: What to draw.

    Returns:
        An event a step, over all batches; the last of each batch carries it. Drawn as they are asked for.

    Raises:
        ModelError: At once, if what is asked for does not fit together or to the model; later, if numbers are not finite.
    """
    check_request(drawing.prompts, drawing.seeds)
    drawer.check(drawing)
    _check(drawer, drawing)
    return _batches(drawer, drawing, drawer.scheduler(drawing.config))


def _batches(drawer: Drawer, drawing: Drawing, scheduler: Any) -> Iterator[Event[Generated]]:
    count, size = len(drawing.prompts), drawing.config.batch
    starts = range(0, count, size)
    for index, start in enumerate(starts):
        for event in _draw_batch(drawer, drawing, slice(start, start + size), scheduler):
            images = event.result
            finished = None if images is None else Generated(images, start + len(images), count)
            yield Event("drawing", index * event.total + event.done, len(starts) * event.total, result=finished)


@torch.no_grad()
def _draw_batch(
    drawer: Drawer, drawing: Drawing, rows: slice, scheduler: Any
) -> Iterator[Event[UInt8[np.ndarray, "n h w 3"]]]:
    model, seeds = drawer.model, drawing.seeds[rows]
    with ExitStack() as stack:
        for control in drawing.controls:
            stack.enter_context(control.applied(model))
        # generators on the CPU draw the same noise for every device
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        sampling, noise = drawer.sampling(drawing, rows, scheduler, generators)
        for event in sample_events(sampling, noise):
            yield Event("drawing", event.step.index + 1, event.step.total)
    images, blanked = drawer.finished(event.latents, generators)
    model.pipeline.maybe_free_model_hooks()
    if any(blanked):
        whose = [int(seed) for seed, flag in zip(seeds, blanked, strict=True) if flag]
        warnings.warn(f"{model.name}: its safety checker blanked the images of seeds {whose}", stacklevel=5)
    whole = _with_known(drawing, rows, (images * 255).round().astype(np.uint8), blanked)
    yield Event("drawing", event.step.total, event.step.total, result=whole)


def course(drawer: Drawer, drawing: Drawing, rows: slice, noise: Tensor) -> dict[str, Any]:
    """Controls and start of a run, which may begin at a picture or keep part of one."""
    options: dict[str, Any] = {"controls": tuple(drawing.controls)}
    if drawing.image is None:
        return options
    known = drawer.encode_images(from_pixels(_rows_of(drawing.image, rows, len(noise)))).to(
        noise
    )  # (batch, c, latent_h, latent_w)
    start = {"image": known, "strength": drawing.strength}
    if drawing.mask is None:
        return options | start
    inpainting = Inpainting(known, _cells(drawing.mask, drawer.factor).to(noise.device), noise)
    options["controls"] += (inpainting,)
    return options if drawing.strength == 1 else options | start


def _cells(mask: Bool[np.ndarray, "h w"], factor: int) -> Bool[Tensor, "1 1 latent_h latent_w"]:
    """The latent cells to draw: those with any pixel to draw, so that no small region is lost."""
    pixels: Float[Tensor, "1 1 h w"] = torch.from_numpy(mask)[None, None].float()
    return F.max_pool2d(pixels, factor) > 0


def _with_known(drawing: Drawing, rows: slice, images: np.ndarray, blanked: Sequence[bool]) -> np.ndarray:
    """What is outside the mask, to the bit; the VAE would blur it."""
    if drawing.mask is None or drawing.image is None:
        return images
    known = _rows_of(drawing.image, rows, len(images))
    kept = ~drawing.mask[None, :, :, None] & ~np.array(blanked)[:, None, None, None]
    return np.where(kept, known, images)  # (batch, h, w, 3)


def _rows_of(image: np.ndarray, rows: slice, count: int) -> np.ndarray:
    return np.repeat(image[None], count, 0) if image.ndim == 3 else image[rows]  # (count, h, w, 3)


def _check(drawer: Drawer, drawing: Drawing) -> None:
    config, size, count = drawing.config, (*drawing.size(drawer.size), 3), len(drawing.prompts)
    if any(side % drawer.multiple for side in size[:2]):
        raise ModelError(
            f"width and height: expected multiples of {drawer.multiple}, found {size[1]} and {size[0]}; change them"
        )
    negative = config.negative_prompt
    if negative is not None and config.guidance <= 1:
        raise ModelError(f"negative prompt: has no effect at guidance {config.guidance:g}; use guidance above 1")
    if negative is not None and not isinstance(negative, str) and len(negative) != count:
        raise ModelError(f"negative prompt: expected one, or one for each of {count} prompts, found {len(negative)}")
    if drawing.image is None:
        if drawing.mask is not None or config.strength is not None:
            raise ModelError("mask and strength: expected an image to start from; give image=")
        return
    if drawing.image.shape not in (size, (count, *size)):
        raise ModelError(
            f"image: expected RGB of {size}, or one for each of {count} prompts, found {drawing.image.shape}; resize it"
        )
    if drawing.image.dtype != np.uint8 or (drawing.mask is not None and drawing.mask.dtype != np.bool_):
        found = f"{drawing.image.dtype}" + (f" and {drawing.mask.dtype}" if drawing.mask is not None else "")
        raise ModelError(f"image and mask: expected uint8 of 0 to 255 and bool, found {found}; convert them")
    steps_from_image(config.steps, drawing.strength)
    if drawing.mask is not None and (drawing.mask.shape != size[:2] or not drawing.mask.any()):
        found = "nothing marked" if drawing.mask.shape == size[:2] else str(drawing.mask.shape)
        raise ModelError(f"mask: expected {size[:2]} with True where to draw, found {found}")
