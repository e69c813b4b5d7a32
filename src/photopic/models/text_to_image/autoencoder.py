"""The two ways through a pipeline's VAE, scaled as the UNet expects, in the precision it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.place import device_of
from photopic.core.sampling import check_finite
from photopic.models.set_aside import room_for_decoding


@torch.no_grad()
def encode_images(pipeline: Any, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c latent_h latent_w"]:
    """Scaled latents of images in -1 to 1: the mean of the posterior, so no randomness.

    Raises:
        ModelError: If the sides are not multiples of the VAE's scale factor, or numbers are not finite.
    """
    return latents_of(pipeline, images)


def latents_of(pipeline: Any, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c latent_h latent_w"]:
    """The same where gradients flow to the images; raises as ``encode_images``."""
    factor, vae = pipeline.vae_scale_factor, pipeline.vae
    if images.shape[-1] % factor or images.shape[-2] % factor:
        raise ModelError(
            f"images are {images.shape[-1]}x{images.shape[-2]}, sides must be multiples of {factor}; resize them"
        )
    with _full_precision(vae):
        # (batch, c, h / factor, w / factor); no draw from the posterior
        mean = vae.encode(images.to(device_of(vae), vae.dtype)).latent_dist.mean
    check_finite(mean, "vae: the encoded images", vae)
    return _scaled(vae, mean).to(pipeline.unet.dtype)


@torch.no_grad()
def decode_latents(pipeline: Any, latents: Float[Tensor, "batch c latent_h latent_w"]) -> Float[Tensor, "batch 3 h w"]:
    """Images in -1 to 1 of scaled latents; the inverse of ``encode_images`` up to the VAE's loss."""
    return pictures_of(pipeline, latents)


def pictures_of(pipeline: Any, latents: Float[Tensor, "batch c latent_h latent_w"]) -> Float[Tensor, "batch 3 h w"]:
    """The same where gradients flow to the latents; they end where a picture is clipped."""
    vae = pipeline.vae
    room_for_decoding(latents)
    with _full_precision(vae):
        images = vae.decode(_unscaled(vae, latents).to(device_of(vae), vae.dtype), return_dict=False)[
            0
        ]  # (batch, 3, h, w)
    check_finite(images, "vae: the decoded images", vae)
    return images.clamp(-1, 1).to(pipeline.unet.dtype)


@torch.no_grad()
def finished_pictures(
    pipeline: Any, latents: Float[Tensor, "batch c latent_h latent_w"], generators: Sequence[torch.Generator]
) -> tuple[Any, list[bool]]:
    """What a stock pipeline makes of its last latents, its watermark and safety checker included.

    Returns:
        Images as an array (n, h, w, 3) in 0 to 1, and for each whether the safety checker blanked it.

    Raises:
        ModelError: If the VAE's numbers are not finite; such pictures would be black.
    """
    vae = pipeline.vae
    room_for_decoding(latents)
    if _is_xl(pipeline):  # its VAE overflows in half precision, and it has a watermark in place of a checker
        with _full_precision(vae):
            images = vae.decode(_unscaled(vae, latents.to(vae.dtype)), return_dict=False)[0]
        check_finite(images, "vae: the decoded images", vae)
        if pipeline.watermark is not None:
            images = pipeline.watermark.apply_watermark(images)
        return pipeline.image_processor.postprocess(images, output_type="np"), [False] * len(latents)
    images = vae.decode(latents / vae.config.scaling_factor, return_dict=False, generator=list(generators))[0]
    check_finite(images, "vae: the decoded images", vae)
    images, blanked = pipeline.run_safety_checker(images, latents.device, latents.dtype)
    blanked = [bool(flag) for flag in blanked or [False] * len(latents)]
    shown = pipeline.image_processor.postprocess(
        images, output_type="np", do_denormalize=[not flag for flag in blanked]
    )
    return shown, blanked


def _unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the VAE made them; some SDXL-shaped models normalise every channel."""
    mean, std = _channels(vae, latents)
    return latents / vae.config.scaling_factor if mean is None else latents * std / vae.config.scaling_factor + mean


def _channels(vae: Any, latents: Tensor) -> tuple[Any, Any]:
    """Mean and deviation of each channel, (1, c, 1, 1), or None twice."""
    found = [getattr(vae.config, name, None) for name in ("latents_mean", "latents_std")]
    if None in found:
        return None, None
    mean, std = (torch.tensor(value).view(1, -1, 1, 1).to(latents) for value in found)
    return mean, std


def _scaled(vae: Any, latents: Tensor) -> Tensor:
    """The inverse of ``_unscaled``."""
    mean, std = _channels(vae, latents)
    return (latents if mean is None else (latents - mean) / std) * vae.config.scaling_factor


def _is_xl(pipeline: Any) -> bool:
    return hasattr(pipeline, "watermark")


@contextmanager
def _full_precision(vae: Any) -> Iterator[None]:
    """Run a half-precision VAE that asks for it in float32, as diffusers does; the way back is exact."""
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if upcast:
        nn.Module.to(vae, torch.float32)  # past diffusers' own, which prints a line on every cast
    try:
        yield
    finally:
        if upcast:
            nn.Module.to(vae, torch.float16)
