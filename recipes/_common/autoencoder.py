"""An AutoencoderKL without attention: how it is built, its loss, and how it is written for diffusers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from photopic.models.files import forget_sources

ENDS = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out", "quant_conv", "post_quant_conv")


def build(channels: tuple[int, ...], latent_channels: int, size: int, seed: int) -> AutoencoderKL:
    """A fresh autoencoder that halves the picture between its levels."""
    torch.manual_seed(seed)
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=2,  # more groups of so few channels would normalise the colour away
        sample_size=size,
        mid_block_add_attention=False,
    )
    return model.to(memory_format=torch.channels_last)


def losses(
    model: AutoencoderKL, images: Tensor, weight: Tensor, *, edges: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruct through sampled latents.

    Args:
        images: (batch, 3, height, width) in -1 to 1.
        weight: Of each pixel, (batch, 1, height, width).
        edges: Weight of the errors of the differences to the neighbours below and to the right.
        seed: Of the noise of the latents.

    Returns:
        The weighted mean error, the KL term per latent entry, and the pictures.
    """
    posterior = model.encode(images).latent_dist
    output = model.decode(posterior.sample(torch.Generator().manual_seed(seed))).sample
    error = output - images
    loss = ((error.abs() + error.square()) * weight).mean()
    for dim in (-1, -2):
        loss = loss + edges * (error.diff(dim=dim).abs() * weight.narrow(dim, 1, weight.shape[dim] - 1)).mean()
    return loss / weight.mean(), posterior.kl().mean() / posterior.mean[0].numel(), output


@torch.no_grad()
def write(model: AutoencoderKL, images: Tensor, folder: Path) -> float:
    """Save in half precision, the scaling factor one over the standard deviation of these pictures' latents; return it."""
    latents = torch.cat([model.encode(part).latent_dist.mean for part in images.split(8)])
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5), shift_factor=None)
    model.half().save_pretrained(folder)
    forget_sources(folder)
    return float(model.float().config.scaling_factor)
