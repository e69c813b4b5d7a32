"""The networks of a style-based generator: mapping and synthesis with modulated convolutions, skip to-RGB, explicit noise.

The arithmetic is that of StyleGAN2 (arXiv:1912.04958), so that its weights load by their names; the noise of a layer is an option:
added (StyleGAN2's), gated (arXiv:2006.05891) or none. Everything is differentiable in both modes and free of in-place writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import FieldError

SLOPE, GAIN = 0.2, math.sqrt(2)  # of every leaky ReLU
TINY = 1e-8
SHARP = 80.0  # of the softmax over codes, whose logits have a deviation of about 1 before

Noise = Literal["add", "gated", "none"]
Reduction = Literal["sum", "negative", "abs", "max"]
Scale = Literal["max_abs", "shifted_max"]
Norm = Literal["rms", "l2"]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Config):
    """What a style-based generator is made of."""

    resolution: Annotated[int, Ge(8)] = 64  # side of the pictures in pixels, a power of two
    z_width: Annotated[int, Ge(1)] = 64  # numbers that a picture is drawn from
    w_width: Annotated[int, Ge(1)] = 64  # numbers of w, what the mapping makes of z
    mapping_layers: Annotated[int, Ge(1)] = 4  # layers between z and w
    channels: tuple[Annotated[int, Ge(1)], ...] = (96, 96, 64, 32, 16)  # feature maps at 4, 8, ... pixels
    codes: Annotated[int, Ge(0)] = (
        0  # learnt vectors one of which w lies near: a mixture, for few and unlike drawings; 0: none
    )
    mapping_rate: float = 0.01  # learning rate of the mapping as a share of the rest's
    noise: Noise = "add"  # add: StyleGAN2's; gated: where and how strongly is learnt (arXiv:2006.05891); none
    gate_reduction: Reduction = "sum"  # of channels to one map that the gate reads
    gate_scale: Scale = "max_abs"  # of that map: mean 0 and largest size 1, or about 0 to 1 as the author's code has it
    gate_norm: Norm = (
        "rms"  # of the gate: mean square 1; l2: its squares sum to 1 and a learnt gain follows, as published
    )
    seed: Annotated[int, Ge(0)] = 0  # of the first weights and the stored noise

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution & (self.resolution - 1):
            raise FieldError("resolution", f"expected a power of two, found {self.resolution}")
        if len(self.channels) != self.resolution.bit_length() - 2:
            raise FieldError(
                "channels",
                f"expected {self.resolution.bit_length() - 2} numbers, one for each size from 4 to {self.resolution}, found "
                f"{len(self.channels)}",
            )

        if self.codes and self.z_width < 2:
            raise FieldError("z_width", f"expected 2 or more with codes, found {self.z_width}")

    @property
    def layers(self) -> int:
        """How many w one picture takes in W+: 2 log2(resolution) - 2."""
        return 2 * (self.resolution.bit_length() - 1) - 2


class EqualLinear(nn.Module):
    """A linear layer whose weights have unit variance and are scaled as they are used.

    Args:
        inputs: Width of what enters.
        outputs: Width of what leaves.
        bias: First value of the bias.
        rate: Learning rate as a share of that of other layers.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """The product and the bias."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Mapping(nn.Module):
    """From z to w: z at unit mean square, then layers with leaky ReLU.

    With codes, w is of a mixture (as in DeLiGAN, arXiv:1706.02071): the first half of z chooses between learnt vectors by a sharp
    softmax over their keys, the layers make of the other half what is added, and the sum is of unit mean square.

    Args:
        config: What the generator is made of.
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.chooses = config.z_width // 2 if config.codes else 0  # numbers of z
        widths = [config.z_width - self.chooses] + [config.w_width] * config.mapping_layers
        self.layers = nn.ModuleList(EqualLinear(a, b, rate=config.mapping_rate) for a, b in pairwise(widths))
        if self.chooses:
            self.keys = nn.Parameter(F.normalize(torch.randn(config.codes, self.chooses), dim=1))
            self.offset = nn.Parameter(torch.zeros(config.codes))
            self.values = nn.Parameter(torch.randn(config.codes, config.w_width))

    def forward(
        self, z: Float[Tensor, "batch z"], mean: Float[Tensor, "d"] | None = None, truncation: float = 1.0
    ) -> Float[Tensor, "batch d"]:
        """w of each z, drawn towards the mean by the truncation."""
        at = z * (z.square().mean(1, keepdim=True) + TINY).rsqrt()
        x = self.added(at)
        if self.chooses:
            x = x + self.choice(at[:, : self.chooses]) @ self.values
            x = x * (x.square().mean(1, keepdim=True) + TINY).rsqrt()
        return x if mean is None else mean + truncation * (x - mean)

    def added(self, at: Float[Tensor, "batch z"]) -> Float[Tensor, "batch d"]:
        """What the layers make of z at unit mean square; with codes of its second half."""
        x = at[:, self.chooses :]
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN
        return x

    def choice(self, at: Float[Tensor, "batch half"]) -> Float[Tensor, "batch codes"]:
        """The share of each code, of the first half of z; nearly always one of them has nearly all."""
        return (SHARP * (at @ self.keys.T + self.offset)).softmax(1)


def _binomial(taps: Sequence[float]) -> Tensor:
    kernel = torch.tensor(taps)
    return torch.outer(kernel, kernel) / kernel.sum() ** 2


class Upsample(nn.Module):
    """Twice the size by a filter; with a kernel of ones it is the smoothing after a transposed convolution."""

    kernel: Tensor

    def __init__(self, *, after_convolution: bool):
        super().__init__()
        self.register_buffer("kernel", 4 * _binomial((1.0, 3.0, 3.0, 1.0)), persistent=False)
        self.after_convolution = after_convolution

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Tensor:
        """The filtered maps."""
        kernel = self.kernel.to(x.dtype).expand(x.shape[-3], 1, 4, 4)
        if self.after_convolution:  # (2h + 1) -> (2h)
            return F.conv2d(x, kernel, padding=1, groups=x.shape[-3])
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[-3])  # h -> 2h


class Gate(nn.Module):
    """Where noise acts, read from the feature map itself: o = sigma(x) * (x + noise) (arXiv:2006.05891).

    Args:
        side: Of the map in pixels; A and b are of this size.
        config: Reduction, scale and norm.
    """

    def __init__(self, side: int, config: GeneratorConfig):
        super().__init__()
        self.reduction, self.scale, self.norm = config.gate_reduction, config.gate_scale, config.gate_norm
        self.slope = nn.Parameter(torch.randn(side, side))  # A
        self.offset = nn.Parameter(torch.randn(side, side))  # b
        self.mix = nn.Parameter(torch.tensor(0.5))  # a = 1 - alpha of the paper
        self.equal = 1 / math.sqrt(side)  # equalised learning rate, fan-in = height
        if self.norm == "l2":
            self.gain = nn.Parameter(torch.tensor(float(side)))  # r; sqrt(h w) keeps the size of x

    def sigma(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch 1 h w"]:
        """The gate of each picture."""
        reduced = {
            "sum": lambda: x.sum(1, keepdim=True),
            "negative": lambda: F.relu(-x).sum(1, keepdim=True),
            "abs": lambda: x.abs().sum(1, keepdim=True),
            "max": lambda: (-x).amax(1, keepdim=True),
        }[self.reduction]()
        m = reduced - reduced.mean((2, 3), keepdim=True)
        if self.scale == "max_abs":
            m = m / m.abs().amax((2, 3), keepdim=True).clamp_min(torch.finfo(m.dtype).tiny)
        else:
            m = (m / (m.amax((2, 3), keepdim=True) + TINY) + 1) / 2
        q = self.equal * (self.slope * m + self.offset)
        q = self.mix + (1 - self.mix) * q
        if self.norm == "l2":
            return self.gain * q / (q.square().sum((2, 3), keepdim=True) + TINY).sqrt()
        return q / (q.square().mean((2, 3), keepdim=True) + TINY).sqrt()

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """The map and its noise, gated."""
        sigma = self.sigma(x)
        return sigma * x if noise is None else sigma * (x + noise)


class ModulatedConv(nn.Module):
    """A convolution whose inputs are scaled by a style; one made to unit variance again unless it makes colours.

    Scaling the maps before and after one shared convolution is scaling its weights for every picture.

    Args:
        inputs: Channels that enter.
        outputs: Channels that leave.
        w_width: Width of w.
        kernel: Side of the kernel.
    """

    def __init__(self, inputs: int, outputs: int, w_width: int, kernel: int):
        super().__init__()
        self.affine = EqualLinear(w_width, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs * kernel**2)

    def demodulation(self, style: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """1 / norm of the weights of each output under a style."""
        energy = (self.weight * self.scale).square().sum((2, 3))  # (outputs, inputs)
        return (style.square() @ energy.T + TINY).rsqrt()


class StyleLayer(ModulatedConv):
    """A modulated 3x3 convolution, upsampling or not, with its noise, bias and leaky ReLU.

    Args:
        inputs: Channels that enter.
        outputs: Channels that leave.
        side: Of what leaves, in pixels.
        up: Whether what enters is half that size.
        config: Noise and width of w.
    """

    def __init__(self, inputs: int, outputs: int, side: int, up: bool, config: GeneratorConfig):
        super().__init__(inputs, outputs, config.w_width, 3)
        self.smooth = Upsample(after_convolution=True) if up else None
        self.gate = Gate(side, config) if config.noise == "gated" else None
        self.register_buffer("noise", torch.randn(1, 1, side, side) if config.noise != "none" else None)
        shares_gain = config.noise == "gated" and config.gate_norm == "l2"  # as published: one gain for x and noise
        self.strength = None if config.noise == "none" or shares_gain else nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, style: Float[Tensor, "batch inputs"], noise: Tensor | None) -> Tensor:
        """The activated maps."""
        x, weight = x * style[:, :, None, None], self.weight * self.scale
        if self.smooth is None:
            x = F.conv2d(x, weight, padding=1)
        else:
            x = self.smooth(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        x = self.with_noise(x * self.demodulation(style)[:, :, None, None], noise)
        return F.leaky_relu(x + self.bias[:, None, None], SLOPE) * GAIN

    def with_noise(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """What the convolution made, with noise (1 or batch, 1, h, w) as the layer takes it."""
        if noise is not None and self.strength is not None:
            noise = self.strength * noise
        if self.gate is not None:
            return self.gate(x, noise)
        return x if noise is None else x + noise


class ToRGB(ModulatedConv):
    """Colours of a map: a modulated 1x1 convolution.

    Args:
        inputs: Channels that enter.
        w_width: Width of w.
    """

    def __init__(self, inputs: int, w_width: int):
        super().__init__(inputs, 3, w_width, 1)

    def forward(self, x: Tensor, style: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch 3 h w"]:
        """The colours."""
        return F.conv2d(x * style[:, :, None, None], self.weight * self.scale, self.bias)


class Synthesis(nn.Module):
    """From w to pictures: a learnt 4x4 map, a style layer there and two at each further size, colours added up over the sizes.

    Styles are one tensor a style layer, then one a to-RGB layer. Layer l of W+ drives style layer l; to-RGB layer k shares layer
    2k + 1 with the first style layer of the next size.

    Args:
        config: What the generator is made of.
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        channels, sides = config.channels, [4 << k for k in range(len(config.channels))]
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        convs = [StyleLayer(channels[0], channels[0], 4, False, config)]
        for before, after, side in zip(channels, channels[1:], sides[1:], strict=False):
            convs += [StyleLayer(before, after, side, True, config), StyleLayer(after, after, side, False, config)]
        self.convs = nn.ModuleList(convs)
        self.to_rgb = nn.ModuleList(ToRGB(width, config.w_width) for width in channels)
        self.style = nn.ModuleList(nn.Identity() for _ in range(config.layers))  # where edits of one layer's w are put
        self.upsample = Upsample(after_convolution=False)

    def stored_noise(self) -> list[Tensor | None]:
        """The noise of each style layer; None where layers have none."""
        return [getattr(conv, "noise", None) for conv in self.convs]

    def styles(self, w: Float[Tensor, "batch layers d"]) -> list[Tensor]:
        """The styles of a w for each layer."""
        each = [place(w[:, layer]) for layer, place in enumerate(self.style)]
        return [conv.get_submodule("affine")(each[layer]) for layer, conv in enumerate(self.convs)] + [
            rgb.get_submodule("affine")(each[2 * k + 1]) for k, rgb in enumerate(self.to_rgb)
        ]

    def draw(self, styles: Sequence[Tensor], noise: Sequence[Tensor | None]) -> Float[Tensor, "batch 3 h w"]:
        """Pictures of styles."""
        x = self.constant.expand(len(styles[0]), -1, -1, -1)
        picture = None
        for layer, conv in enumerate(self.convs):
            x = conv(x, styles[layer], noise[layer])
            if layer % 2 == 0:  # the last layer of a size
                colours = self.to_rgb[layer // 2](x, styles[len(self.convs) + layer // 2])
                picture = colours if picture is None else self.upsample(picture) + colours
        assert picture is not None
        return picture

    def forward(
        self, w: Float[Tensor, "batch layers d"], noise: Sequence[Tensor | None]
    ) -> Float[Tensor, "batch 3 h w"]:
        """Pictures of a w for each layer."""
        return self.draw(self.styles(w), noise)
