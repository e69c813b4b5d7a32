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
    check_finite,
    sample_events,
    standard_noise,
    steps_from_image,
)
from photopic.models.files import quiet
from photopic.models.text_to_image.autoencoder import encode_images, finished_pictures
from photopic.models.text_to_image.checks import check_request, check_scheduler
from photopic.models.text_to_image.conditioning import Conditioning
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.schedulers import check_steps, scheduler_named

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


@runtime_checkable
class Drawable(Protocol):
    """What drawing asks of a handle; ``TextToImage`` is one."""

    name: str
    pipeline: Any

    @property
    def edits(self) -> Any:
        """The stack of edits in force."""

    def token_positions(self, prompt: str, word: str) -> list[int]:
        """Positions of a word's tokens in the tokenised prompt."""


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


def encode(
    pipeline: Any,
    prompts: Sequence[str],
    size: tuple[int, int],
    *,
    guided: bool = False,
    negative: Sequence[str] | None = None,
) -> tuple[Conditioning, Conditioning | None]:
    """Prompts as the pipeline encodes them, and what guidance leads away from: the negative prompts, or what it uses without.

    Args:
        pipeline: Of Stable Diffusion 1.x, 2.x or XL shape.
        prompts: One or more.
        size: Height and width of the pictures in pixels, which SDXL-shaped models are told.
        guided: Whether the second result is wanted; it is None otherwise.
        negative: One for each prompt, or None.

    Raises:
        ModelError: If a text encoder's numbers are not finite.
    """
    encoded = pipeline.encode_prompt(
        prompt=list(prompts),
        device=pipeline._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        **({} if negative is None else {"negative_prompt": list(negative)}),
    )
    dtype = pipeline.unet.dtype
    wanted = 2 if guided else 1
    hidden = [part.to(dtype) for part in encoded[:wanted]]
    for part in hidden:
        check_finite(part, "text encoder: the encoded prompts", pipeline.text_encoder)
    if len(encoded) == 2:
        found = [Conditioning(part) for part in hidden]
    else:  # (embeddings, negative, pooled, negative pooled)
        pooled = [part.to(dtype) for part in encoded[2 : 2 + wanted]]
        second = pipeline.text_encoder_2
        width = pooled[0].shape[-1] if second is None else second.config.projection_dim
        sizes = pipeline._get_add_time_ids(size, (0, 0), size, dtype, width).to(hidden[0].device)
        sizes = sizes.repeat(len(prompts), 1)
        found = [Conditioning(part, own, sizes) for part, own in zip(hidden, pooled, strict=True)]
    return found[0], found[1] if guided else None


def draw(model: Drawable, drawing: Drawing) -> Iterator[Event[Generated]]:
    """Draw batch by batch.

    Args:
        model: A handle.
        drawing: What to draw.

    Returns:
        An event a step, over all batches; the last of each batch carries it. Drawn as they are asked for.

    Raises:
        ModelError: At once, if what is asked for does not fit together or to the model; later, if numbers are not finite.
    """
    config = drawing.config
    check_request(drawing.prompts, drawing.seeds)
    _check(model, drawing)
    scheduler = config.scheduler or model.pipeline.scheduler
    if isinstance(scheduler, str):
        scheduler = scheduler_named(scheduler, model.pipeline.scheduler)
    check_scheduler(scheduler, model.name)
    check_steps(scheduler, config.steps)
    return _batches(model, drawing, scheduler)


def _batches(model: Drawable, drawing: Drawing, scheduler: Any) -> Iterator[Event[Generated]]:
    count, size = len(drawing.prompts), drawing.config.batch
    starts = range(0, count, size)
    for index, start in enumerate(starts):
        for event in _draw_batch(model, drawing, slice(start, start + size), scheduler):
            images = event.result
            finished = None if images is None else Generated(images, start + len(images), count)
            yield Event("drawing", index * event.total + event.done, len(starts) * event.total, result=finished)


@torch.no_grad()
def _draw_batch(
    model: Drawable, drawing: Drawing, rows: slice, scheduler: Any
) -> Iterator[Event[UInt8[np.ndarray, "n h w 3"]]]:
    pipeline, seeds = model.pipeline, drawing.seeds[rows]
    with ExitStack() as stack:
        for control in drawing.controls:
            stack.enter_context(control.applied(model))
        # generators on the CPU draw the same noise for every device
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        sampling, noise = _sampling(model, drawing, rows, scheduler, generators)
        for event in sample_events(sampling, noise):
            yield Event("drawing", event.step.index + 1, event.step.total)
    images, blanked = finished_pictures(pipeline, event.latents, generators)
    pipeline.maybe_free_model_hooks()
    if any(blanked):
        whose = [int(seed) for seed, flag in zip(seeds, blanked, strict=True) if flag]
        warnings.warn(f"{model.name}: its safety checker blanked the images of seeds {whose}", stacklevel=5)
    whole = _with_known(drawing, rows, (images * 255).round().astype(np.uint8), blanked)
    yield Event("drawing", event.step.total, event.step.total, result=whole)


def _sampling(
    model: Drawable, drawing: Drawing, rows: slice, scheduler: Any, generators: list[torch.Generator]
) -> tuple[Sampling, Float[Tensor, "batch c h w"]]:
    """The run that draws a batch, and the noise it starts from."""
    pipeline, config, prompts = model.pipeline, drawing.config, drawing.prompts[rows]
    distilled = pipeline.unet.config.time_cond_proj_dim is not None  # guidance is an input of the network
    negative = config.negative_prompt
    conditioning, unconditional = encode(
        pipeline,
        prompts,
        _size(pipeline),
        guided=config.guidance > 1 and not distilled,
        negative=[negative] * len(prompts) if isinstance(negative, str) else negative and negative[rows],
    )
    height, width = (side // pipeline.vae_scale_factor for side in _size(pipeline))
    shape = (len(prompts), pipeline.unet.config.in_channels, height, width)  # of the latents
    noise = standard_noise(generators, conditioning.hidden.new_empty(shape))
    if model.edits.has_start_noise:
        noise = model.edits.start_noise(noise)
    sampling = Sampling(
        pipeline.unet,
        scheduler,
        conditioning,
        generators,
        unconditional,
        steps=config.steps,
        scale=config.guidance,
        unet_kwargs=_guidance_input(pipeline, config.guidance, noise) if distilled else {},
        positions=lambda words: [model.token_positions(prompt, words) for prompt in prompts],
        **_course(pipeline, drawing, rows, noise),
    )
    return sampling, noise


def _guidance_input(pipeline: Any, guidance: float, noise: Tensor) -> dict[str, Tensor]:
    scale = torch.tensor(guidance - 1).repeat(len(noise))  # (batch,); distilled models were taught scale - 1
    width = pipeline.unet.config.time_cond_proj_dim
    embedded = pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)  # (batch, width)
    return {"timestep_cond": embedded.to(noise)}


def _course(pipeline: Any, drawing: Drawing, rows: slice, noise: Tensor) -> dict[str, Any]:
    """Controls and start of a run, which may begin at a picture or keep part of one."""
    options: dict[str, Any] = {"controls": tuple(drawing.controls)}
    if drawing.image is None:
        return options
    pixels = torch.from_numpy(_rows_of(drawing.image, rows, len(noise))).permute(0, 3, 1, 2).float() / 127.5 - 1
    known = encode_images(pipeline, pixels).to(noise)  # (batch, c, latent_h, latent_w)
    start = {"image": known, "strength": drawing.strength}
    if drawing.mask is None:
        return options | start
    inpainting = Inpainting(known, _cells(drawing.mask, pipeline.vae_scale_factor).to(noise.device), noise)
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


def _size(pipeline: Any) -> tuple[int, int]:
    """Height and width of a picture in pixels."""
    size = pipeline.unet.config.sample_size or pipeline.default_sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor


def _is_stock(pipeline: Any) -> bool:
    with quiet():
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    return type(pipeline).__call__ in (StableDiffusionPipeline.__call__, StableDiffusionXLPipeline.__call__)


def _check(model: Drawable, drawing: Drawing) -> None:
    if not _is_stock(model.pipeline):
        raise ModelError(
            f"{model.name}: {type(model.pipeline).__name__} draws in a way of its own; call model.pipeline, or load a "
            "StableDiffusionPipeline or StableDiffusionXLPipeline"
        )
    config, size, count = drawing.config, (*_size(model.pipeline), 3), len(drawing.prompts)
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
