"""Pictures from prompts: what ``TextToImage.generate`` does, through the one denoising loop of ``photopic.core.sampling``.

Prompts are encoded by the pipeline, and its VAE, watermark and safety checker finish the pictures, so that without controls they
are those of the stock pipeline, bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import Control, Inpainting, Sampling, sample_events, standard_noise, steps_from_image
from photopic.models.text_to_image.autoencoder import encode_images, finished_pictures
from photopic.models.text_to_image.checks import check_request, check_scheduler
from photopic.models.text_to_image.conditioning import Conditioning
from photopic.models.text_to_image.schedulers import scheduler_named

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

STRENGTH = 0.8  # of image-to-image; a region is drawn anew by default
STOCK = (StableDiffusionPipeline.__call__, StableDiffusionXLPipeline.__call__)


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
    """What to draw; the arguments of ``TextToImage.generate_events``, one prompt and one seed a picture."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    steps: int
    guidance: float
    batch: int
    negative_prompt: str | Sequence[str] | None = None
    scheduler: Any = None
    controls: Sequence[Control] = ()
    image: UInt8[np.ndarray, "..."] | None = None
    strength: float | None = None
    mask: Bool[np.ndarray, "h w"] | None = None


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


def draw(
    model: TextToImage, drawing: Drawing, on_step: Callable[[int, int], None] | None = None
) -> Iterator[Generated]:
    """Draw batch by batch.

    Args:
        model: A handle.
        drawing: What to draw.
        on_step: Called with (steps done, steps in all) over all batches.

    Returns:
        One ``Generated`` per batch, drawn as it is asked for.

    Raises:
        ModelError: At once, if what is asked for does not fit together or to the model.
    """
    check_request(drawing.prompts, drawing.seeds, drawing.steps, drawing.batch)
    _check(model, drawing)
    scheduler = drawing.scheduler or model.pipeline.scheduler
    if isinstance(scheduler, str):
        scheduler = scheduler_named(scheduler, model.pipeline.scheduler)
    check_scheduler(scheduler, model.name)
    return _batches(model, drawing, scheduler, on_step)


def _batches(
    model: TextToImage, drawing: Drawing, scheduler: Any, on_step: Callable[[int, int], None] | None
) -> Iterator[Generated]:
    starts = range(0, len(drawing.prompts), drawing.batch)
    for index, start in enumerate(starts):
        rows = slice(start, start + drawing.batch)
        report = on_step and _counted(on_step, index, len(starts))
        images = _draw_batch(model, drawing, rows, scheduler, report)
        yield Generated(images, start + len(images), len(drawing.prompts))


@torch.no_grad()
def _draw_batch(
    model: TextToImage, drawing: Drawing, rows: slice, scheduler: Any, report: Callable[[int, int], None] | None
) -> UInt8[np.ndarray, "n h w 3"]:
    pipeline, prompts, seeds = model.pipeline, drawing.prompts[rows], drawing.seeds[rows]
    distilled = model.unet.config.time_cond_proj_dim is not None  # guidance is an input of the network
    negative = drawing.negative_prompt
    conditioning, unconditional = encode(
        pipeline,
        prompts,
        _size(model),
        guided=drawing.guidance > 1 and not distilled,
        negative=[negative] * len(prompts) if isinstance(negative, str) else negative and negative[rows],
    )
    # generators on the CPU draw the same noise for every device
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    height, width = (side // pipeline.vae_scale_factor for side in _size(model))
    shape = (len(prompts), model.unet.config.in_channels, height, width)
    noise = standard_noise(generators, conditioning.hidden.new_empty(shape))
    if model.edits.has_start_noise:
        noise = model.edits.start_noise(noise)
    sampling = Sampling(
        model.unet,
        scheduler,
        conditioning,
        generators,
        unconditional,
        steps=drawing.steps,
        scale=drawing.guidance,
        unet_kwargs=_guidance_input(model, drawing.guidance, noise) if distilled else {},
        **_course(model, drawing, rows, noise),
    )
    for event in sample_events(sampling, noise):
        if report:
            report(event.step.index + 1, event.step.total)
    images, blanked = finished_pictures(pipeline, event.latents, generators)
    pipeline.maybe_free_model_hooks()
    if any(blanked):
        whose = [int(seed) for seed, flag in zip(seeds, blanked, strict=True) if flag]
        warnings.warn(f"{model.name}: its safety checker blanked the images of seeds {whose}", stacklevel=5)
    return _with_known(drawing, rows, (images * 255).round().astype(np.uint8), blanked)


def _guidance_input(model: TextToImage, guidance: float, noise: Tensor) -> dict[str, Tensor]:
    scale = torch.tensor(guidance - 1).repeat(len(noise))
    width = model.unet.config.time_cond_proj_dim
    embedded = model.pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
    return {"timestep_cond": embedded.to(noise)}


def _course(model: TextToImage, drawing: Drawing, rows: slice, noise: Tensor) -> dict[str, Any]:
    """Controls and start of a run, which may begin at a picture or keep part of one."""
    options: dict[str, Any] = {"controls": tuple(drawing.controls)}
    if drawing.image is None:
        return options
    pixels = torch.from_numpy(_rows_of(drawing.image, rows, len(noise))).permute(0, 3, 1, 2).float() / 127.5 - 1
    known = encode_images(model.pipeline, pixels).to(noise)
    start = {"image": known, "strength": _strength(drawing)}
    if drawing.mask is None:
        return options | start
    inpainting = Inpainting(known, _cells(drawing.mask, model.pipeline.vae_scale_factor).to(noise.device), noise)
    options["controls"] += (inpainting,)
    return options if _strength(drawing) == 1 else options | start


def _strength(drawing: Drawing) -> float:
    if drawing.strength is not None:
        return drawing.strength
    return STRENGTH if drawing.mask is None else 1.0


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
    return np.where(kept, known, images)


def _rows_of(image: np.ndarray, rows: slice, count: int) -> np.ndarray:
    return np.repeat(image[None], count, 0) if image.ndim == 3 else image[rows]


def _size(model: TextToImage) -> tuple[int, int]:
    """Height and width of a picture in pixels."""
    size = model.unet.config.sample_size or model.pipeline.default_sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * model.pipeline.vae_scale_factor, width * model.pipeline.vae_scale_factor


def _counted(on_step: Callable[[int, int], None], index: int, batches: int) -> Callable[[int, int], None]:
    return lambda done, total: on_step(index * total + done, batches * total)


def _check(model: TextToImage, drawing: Drawing) -> None:
    if type(model.pipeline).__call__ not in STOCK:
        raise ModelError(
            f"{model.name}: {type(model.pipeline).__name__} draws in a way of its own; call model.pipeline, or load a "
            "StableDiffusionPipeline or StableDiffusionXLPipeline"
        )
    negative, size, count = drawing.negative_prompt, (*_size(model), 3), len(drawing.prompts)
    if negative is not None and drawing.guidance <= 1:
        raise ModelError(f"negative prompt: has no effect at guidance {drawing.guidance:g}; use guidance above 1")
    if negative is not None and not isinstance(negative, str) and len(negative) != count:
        raise ModelError(f"negative prompt: expected one, or one for each of {count} prompts, found {len(negative)}")
    if drawing.image is None:
        if drawing.mask is not None or drawing.strength is not None:
            raise ModelError("mask and strength: expected an image to start from; give image=")
        return
    if drawing.image.shape not in (size, (count, *size)):
        raise ModelError(
            f"image: expected RGB of {size}, or one for each of {count} prompts, found {drawing.image.shape}; resize it"
        )
    if drawing.image.dtype != np.uint8 or (drawing.mask is not None and drawing.mask.dtype != np.bool_):
        found = f"{drawing.image.dtype}" + (f" and {drawing.mask.dtype}" if drawing.mask is not None else "")
        raise ModelError(f"image and mask: expected uint8 of 0 to 255 and bool, found {found}; convert them")
    if drawing.strength is not None and not 0 < drawing.strength <= 1:
        raise ModelError(f"strength: expected above 0 and at most 1, found {drawing.strength:g}")
    steps_from_image(drawing.steps, _strength(drawing))
    if drawing.mask is not None and (drawing.mask.shape != size[:2] or not drawing.mask.any()):
        found = "nothing marked" if drawing.mask.shape == size[:2] else str(drawing.mask.shape)
        raise ModelError(f"mask: expected {size[:2]} with True where to draw, found {found}")
