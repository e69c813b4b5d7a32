"""The network that `photopic train diffusion` trains: a convolutional UNet of diffusers, one for all sizes of a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from photopic.core.errors import ModelError


def unet(size: int, channels: Sequence[int] = (48, 96, 128), *, levels: int = 0, layers: int = 1, seed: int = 0) -> Any:
    """A diffusers ``UNet2DModel`` with random weights.

    Args:
        size: Side of the pictures.
        channels: Of each resolution, the first at full size; multiples of 8.
        levels: How often the process halves pictures before the network reads them.
        layers: Residual blocks a resolution.
        seed: Of the weights.

    Raises:
        ModelError: If the smallest picture cannot be halved as often as there are resolutions.

    Example:
        >>> unet(32, (8, 16), levels=1)(torch.zeros(1, 3, 16, 16), torch.tensor([5])).sample.shape
        torch.Size([1, 3, 16, 16])
    """
    from diffusers import UNet2DModel

    check_size(size, channels, levels)
    if any(each % 8 for each in channels):
        raise ModelError(f"channels: expected multiples of 8, found {', '.join(map(str, channels))}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=size,
            block_out_channels=tuple(channels),
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            layers_per_block=layers,
            norm_num_groups=8,
            add_attention=True,
            attention_head_dim=min(32, channels[-1]),
        )


def check_size(size: int, channels: Sequence[int], levels: int) -> None:
    """Refuse pictures that a network cannot halve as often as it has to.

    Args:
        size: Side of the pictures.
        channels: Of each resolution of the network.
        levels: How often the process halves pictures before the network reads them.

    Raises:
        ModelError: If the side is not divisible.
    """
    halvings = levels + len(channels) - 1
    if size % 2**halvings:
        raise ModelError(
            f"network: {len(channels)} resolutions after {levels} halvings need a side that {2**halvings} divides, found {size}"
        )
