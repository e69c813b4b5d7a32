"""The networks beside a style-based generator: a discriminator, and an encoder that reads z off pictures."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.models.style_networks import GAIN, SLOPE, EqualLinear, GeneratorConfig


class EqualConv(nn.Module):
    """A convolution whose weights have unit variance and are scaled as they are used."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.padding = 1 / math.sqrt(inputs * kernel**2), kernel // 2

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h w"]:
        """The maps."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE) * GAIN


class Halving(nn.Module):
    """A residual block that halves the size: that of StyleGAN2's discriminator, with means of four pixels as its filter."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = EqualConv(inputs, inputs, 3), EqualConv(inputs, outputs, 3)
        self.skip = EqualConv(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Tensor:
        """Maps of half the size."""
        y = _activated(self.second(F.avg_pool2d(_activated(self.first(x)), 2)))
        return (y + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


class Trunk(nn.Module):
    """Pictures down to maps of 4x4 pixels, with a generator's channels the other way round."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        channels = config.channels[::-1]
        self.from_rgb = EqualConv(3, channels[0], 1)
        self.blocks = nn.Sequential(*(Halving(a, b) for a, b in pairwise(channels)))

    def forward(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch c 4 4"]:
        """The maps."""
        return self.blocks(_activated(self.from_rgb(pictures)))


class Discriminator(nn.Module):
    """How much a picture looks like one of the data: a logit, above 0 for the data's.

    Args:
        config: Of the generator it was trained against.
        group: Pictures whose spread is seen together in training; 1 judges every picture alone.
    """

    def __init__(self, config: GeneratorConfig, group: int = 1):
        super().__init__()
        width = config.channels[0]
        self.group, self.trunk = group, Trunk(config)
        self.last = EqualConv(width + 1, width, 3)
        self.hidden, self.logit = EqualLinear(width * 16, width), EqualLinear(width, 1)

    def forward(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch"]:
        """The logit of each picture."""
        x = self.trunk(pictures)
        if self.group > 1:  # (groups, pictures, c, 4, 4)
            grouped = x.reshape(-1, self.group, *x.shape[1:])
            spread = (grouped.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat_interleave(self.group)
        else:
            spread = x.new_full((len(x),), 0.5)
        x = torch.cat([x, spread[:, None, None, None].expand(-1, 1, 4, 4)], 1)
        return self.logit(_activated(self.hidden(_activated(self.last(x)).flatten(1))))[:, 0]


class Encoder(nn.Module):
    """Mean and log variance of the z that draw a picture.

    Args:
        config: Of the generator it goes with.
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.trunk = Trunk(config)
        self.hidden = EqualLinear(config.channels[0] * 16, 256)
        self.mean, self.log_variance = EqualLinear(256, config.z_width), EqualLinear(256, config.z_width, bias=-3.0)

    def forward(self, pictures: Float[Tensor, "batch 3 side side"]) -> tuple[Tensor, Tensor]:
        """Both, (batch, z) each."""
        x = _activated(self.hidden(self.trunk(pictures).flatten(1)))
        return self.mean(x), self.log_variance(x)
