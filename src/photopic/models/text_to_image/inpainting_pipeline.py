"""Inpainting pipelines of diffusers: told from others, and made of a text-to-image pipeline and the weights that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from photopic.core.errors import ModelError
from photopic.models.files import quiet


def is_inpainting(pipeline: Any) -> bool:
    """Whether the UNet of a pipeline reads a mask and a masked picture beside the latents."""
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if vae is None or not isinstance(unet, UNet2DConditionModel):
        return False
    return bool(unet.config.in_channels == 2 * vae.config.latent_channels + 1)


def with_difference(base: Any, path: Path) -> Any:
    """An inpainting pipeline made of a text-to-image pipeline and the weights that differ from it.

    Args:
        base: The pipeline; its parts are used, its UNet's weights copied.
        path: The safetensors file.

    Raises:
        ModelError: If the file holds other tensors than the UNet has.
    """
    with quiet():
        from diffusers import StableDiffusionInpaintPipeline
    found = load_file(path)
    channels = 2 * base.vae.config.latent_channels + 1
    config = {name: value for name, value in base.unet.config.items() if name != "_use_default_values"}
    unet = UNet2DConditionModel.from_config({**config, "in_channels": channels})  # a default it lists would win
    try:
        unet.load_state_dict({**base.unet.state_dict(), **found})
    except RuntimeError as error:
        raise ModelError(f"{path}: does not fit the UNet it is for; copy the model again") from error
    if base.unet.dtype != torch.float32:
        unet = unet.to(base.unet.dtype)
    parts = {name: getattr(base, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    return StableDiffusionInpaintPipeline(
        **parts, unet=unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
