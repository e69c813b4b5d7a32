"""Latents of a transformer pipeline: always maps of (batch, c, h, w) outside; how the network and the VAE want them.

Sampling is done entry by entry, so whether latents are maps or tokens meanwhile makes no difference to any of their numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import check_finite
from photopic.models.text_to_image.autoencoder import _full_precision
from photopic.models.text_to_image.families import Autoencoding, Family, Layout


def to_network(latents: Float[Tensor, "batch c h w"], layout: Layout) -> Any:
    """Latents as the transformer is given them; ``from_network`` is the inverse."""
    if layout == "packed":  # every 2x2 cells become one token, channels in the order (c, dy, dx)
        batch, c, h, w = latents.shape
        cells = latents.view(batch, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return cells.reshape(batch, h * w // 4, 4 * c)  # (batch, c, h, w) -> (batch, h w / 4, 4 c)
    if layout == "flat":
        return latents.flatten(2).transpose(1, 2)  # (batch, c, h, w) -> (batch, h w, c)
    if layout == "list":
        return list(latents.unsqueeze(2).unbind(0))  # (batch, c, h, w) -> batch of (c, 1, h, w)
    return latents


def from_network(output: Any, layout: Layout, height: int, width: int) -> Float[Tensor, "batch c h w"]:
    """What the transformer returned as a map of the latents' height and width."""
    if layout == "list":
        return torch.stack(list(output)).squeeze(2)  # batch of (c, 1, h, w) -> (batch, c, h, w)
    if layout == "packed":
        batch, _, width_of_token = output.shape
        cells = output.view(batch, height // 2, width // 2, width_of_token // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return cells.reshape(batch, width_of_token // 4, height, width)
    if layout == "flat":
        return output.transpose(1, 2).unflatten(2, (height, width))
    return output


def latent_shape(pipeline: Any, family: Family, height: int, width: int) -> tuple[int, int, int]:
    """Channels, height and width of the latents of a picture."""
    config, factor = pipeline.transformer.config, pipeline.vae_scale_factor
    channels = config.in_channels // (4 if family.layout == "packed" else 1)
    shrink = (
        2 if family.autoencoding == "batch_norm" else 1
    )  # 2x2 cells of the VAE are one cell with four times the channels
    return channels, height // factor // shrink, width // factor // shrink


@torch.no_grad()
def encode(pipeline: Any, family: Family, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c h2 w2"]:
    """Latents of images in -1 to 1: the mean of the posterior, so no randomness.

    Raises:
        ModelError: If the sides are no multiples of what the pipeline takes, or numbers are not finite.
    """
    vae, multiple = pipeline.vae, multiple_of(pipeline, family)
    if images.shape[-1] % multiple or images.shape[-2] % multiple:
        raise ModelError(
            f"images are {images.shape[-1]}x{images.shape[-2]}, sides must be multiples of {multiple}; resize them"
        )
    with _full_precision(vae):
        pixels = images.to(vae.device, vae.dtype)
        if family.autoencoding == "mean_std":
            pixels = pixels.unsqueeze(2)  # (batch, 3, h, w) -> (batch, 3, 1, h, w): a film of one frame
        found = vae.encode(pixels)
        mean = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latent
    check_finite(mean, "vae: the encoded images", vae)
    scale, shift = _scale_and_shift(vae, family.autoencoding, mean)
    latents = (mean - shift) * scale
    return (latents.squeeze(2) if latents.ndim == 5 else latents).to(pipeline.transformer.dtype)


@torch.no_grad()
def decode(pipeline: Any, family: Family, latents: Float[Tensor, "batch c h2 w2"]) -> Float[Tensor, "batch 3 h w"]:
    """Images of latents, about -1 to 1; the inverse of ``encode`` up to the VAE's loss.

    Raises:
        ModelError: If numbers are not finite.
    """
    vae = pipeline.vae
    with _full_precision(vae):
        given = latents.to(vae.device, vae.dtype)
        if family.autoencoding == "mean_std":
            given = given.unsqueeze(2)
        scale, shift = _scale_and_shift(vae, family.autoencoding, given)
        images = vae.decode(given / scale + shift, return_dict=False)[0]
    check_finite(images, "vae: the decoded images", vae)
    return images[:, :, 0] if images.ndim == 5 else images


def multiple_of(pipeline: Any, family: Family) -> int:
    """What the sides of a picture must be multiples of: cells of the VAE, in patches."""
    patch = getattr(pipeline.transformer.config, "patch_size", None)
    patch = patch if isinstance(patch, int) else max(getattr(pipeline.transformer.config, "all_patch_size", (1,)))
    return int(pipeline.vae_scale_factor * (2 if family.layout == "packed" else patch))


def _scale_and_shift(vae: Any, rule: Autoencoding, like: Tensor) -> tuple[Any, Any]:
    """What the VAE's numbers are multiplied by after something is taken from them."""
    config = vae.config
    if rule == "mean_std":
        # (c,) -> (1, c, 1, 1, 1); divided twice as the pipelines do, so that rounding is the same
        mean, std = (
            torch.tensor(each).view(1, -1, 1, 1, 1).to(like) for each in (config.latents_mean, config.latents_std)
        )
        return 1.0 / std, mean
    if rule == "scale":  # a shift in the configuration is not used by these pipelines
        return config.scaling_factor, 0.0
    return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0
