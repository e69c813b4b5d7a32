"""Latents of a transformer pipeline: always maps of (batch, c, h, w) outside; how the network and the VAE want them.

Sampling is done entry by entry, so whether latents are maps or tokens meanwhile makes no difference to any of their numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.nn.attention.layers import plain
from photopic.core.nn.place import device_of
from photopic.core.sampling import check_finite
from photopic.models.set_aside import room_for_decoding
from photopic.models.text_to_image.autoencoder import _full_precision
from photopic.models.text_to_image.families import Family, Layout


def to_network(latents: Float[Tensor, "batch c h w"], layout: Layout, prefix: int = 0) -> Any:
    """Latents as the transformer is given them, behind ``prefix`` rows of zeros; ``from_network`` is the inverse."""
    if layout == "packed":  # every 2x2 cells become one token, channels in the order (c, dy, dx)
        batch, c, h, w = latents.shape
        cells = latents.view(batch, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return cells.reshape(batch, h * w // 4, 4 * c)  # (batch, c, h, w) -> (batch, h w / 4, 4 c)
    if layout in ("flat", "prefixed"):
        cells = latents.flatten(2).transpose(1, 2)  # (batch, c, h, w) -> (batch, h w, c)
        return F.pad(cells, (0, 0, prefix, 0))  # -> (batch, prefix + h w, c)
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
    if layout in ("flat", "prefixed"):  # what stands before the picture's tokens is dropped
        return output[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
    return output


def latent_shape(pipeline: Any, family: Family, height: int, width: int) -> tuple[int, int, int]:
    """Channels, height and width of the latents of a picture."""
    cell = _pixels_a_cell(pipeline, family)
    return (
        pipeline.transformer.config.in_channels // (4 if family.layout == "packed" else 1),
        height // cell,
        width // cell,
    )


def _pixels_a_cell(pipeline: Any, family: Family) -> int:
    """Side of what one cell of the latents shows."""
    if (
        family.autoencoding == "batch_norm"
    ):  # 2x2 cells of the VAE are one with four times the channels; what pipelines call
        return int(2 ** len(pipeline.vae.config.block_out_channels))  # vae_scale_factor counts them or not
    return int(pipeline.vae_scale_factor)


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
        pixels = images.to(device_of(vae), vae.dtype)
        if vae.config.get("in_channels", 3) == 4:  # with a layer of transparency: nothing shines through
            pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        if family.autoencoding == "mean_std":
            pixels = pixels.unsqueeze(2)  # (batch, 3, h, w) -> (batch, 3, 1, h, w): a film of one frame
        found = vae.encode(pixels)
        mean = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latent
    check_finite(mean, "vae: the encoded images", vae)
    if family.autoencoding == "batch_norm":
        mean = _cells(mean, family.channels_last)
    scale, shift = _scale_and_shift(vae, family, mean)
    latents = (mean - shift) * scale
    return (latents.squeeze(2) if latents.ndim == 5 else latents).to(pipeline.transformer.dtype)


@torch.no_grad()
def decode(pipeline: Any, family: Family, latents: Float[Tensor, "batch c h2 w2"]) -> Float[Tensor, "batch 3 h w"]:
    """Images of latents, about -1 to 1; the inverse of ``encode`` up to the VAE's loss.

    Raises:
        ModelError: If numbers are not finite.
    """
    vae = pipeline.vae
    room_for_decoding(latents)
    with _full_precision(vae):
        given = latents.to(device_of(vae), vae.dtype)
        if family.autoencoding == "mean_std":
            given = given.unsqueeze(2)
        scale, shift = _scale_and_shift(vae, family, given)
        given = given / scale + shift
        if family.autoencoding == "batch_norm":
            given = _apart(given, family.channels_last)
        images = vae.decode(given, return_dict=False)[0]
    check_finite(images, "vae: the decoded images", vae)
    return (images[:, :, 0] if images.ndim == 5 else images)[:, :3]


def _cells(latents: Float[Tensor, "batch c h w"], channels_last: bool) -> Float[Tensor, "batch c4 h2 w2"]:
    """Every 2x2 cells as one with four times the channels; ``_apart`` is the inverse."""
    batch, c, h, w = latents.shape
    apart = latents.view(batch, c, h // 2, 2, w // 2, 2)  # (batch, c, y, dy, x, dx)
    order = (0, 3, 5, 1, 2, 4) if channels_last else (0, 1, 3, 5, 2, 4)  # (dy, dx, c) or (c, dy, dx), then y, x
    return apart.permute(order).reshape(batch, 4 * c, h // 2, w // 2)


def _apart(latents: Float[Tensor, "batch c4 h2 w2"], channels_last: bool) -> Float[Tensor, "batch c h w"]:
    batch, c, h, w = latents.shape
    if channels_last:
        cells = latents.view(batch, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)  # -> (batch, c, y, dy, x, dx)
    else:
        cells = latents.view(batch, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
    return cells.reshape(batch, c // 4, 2 * h, 2 * w)


def multiple_of(pipeline: Any, family: Family) -> int:
    """What the sides of a picture must be multiples of: cells of the latents, in patches."""
    patch = patch_of(pipeline.transformer, family)
    # of Qwen-Image 2.1 four tokens share a slot of the mask, as 2x2 do in its text encoder
    return int(_pixels_a_cell(pipeline, family) * (2 * patch if family.slots else patch))


def patch_of(transformer: Any, family: Family) -> int:
    """Side in cells of the latents of what the network takes as one token."""
    if family.layout == "packed":
        return 2
    patch = getattr(plain(transformer).config, "patch_size", None) or 1
    patch = max(patch) if isinstance(patch, list | tuple) else int(patch)
    return max(patch, *getattr(plain(transformer).config, "all_patch_size", (1,)), 1)


def _scale_and_shift(vae: Any, family: Family, like: Tensor) -> tuple[Any, Any]:
    """What the VAE's numbers are multiplied by after something is taken from them."""
    config, rule = vae.config, family.autoencoding
    if rule == "batch_norm":
        epsilon = config.batch_norm_eps if family.epsilon is None else family.epsilon
        mean, variance = (each.view(1, -1, 1, 1).to(like) for each in (vae.bn.running_mean, vae.bn.running_var))
        return 1.0 / (variance + epsilon).sqrt(), mean  # (1, 4 c, 1, 1)
    if rule == "mean_std":
        # (c,) -> (1, c, 1, 1, 1); divided twice as the pipelines do, so that rounding is the same
        mean, std = (
            torch.tensor(each).view(1, -1, 1, 1, 1).to(like) for each in (config.latents_mean, config.latents_std)
        )
        return 1.0 / std, mean
    if rule == "scale":  # a shift in the configuration is not used by these pipelines
        return config.scaling_factor, 0.0
    return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0
