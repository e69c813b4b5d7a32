"""A U-Net that marks the skeleton of a silhouette, with context extraction and attention over it at its coarser levels.

Paper: *Context Attention Network for Skeleton Extraction* (arXiv:2205.12066), of which the abstract was read: it names the
parts and not their insides. The context group here is that of the challenge's second place of 2021, with dilations added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ContextGroup(nn.Module):
    """x + sum_i a_i b_i: parallel 3 x 3 convolutions of several reaches, weighed at every place by a softmax over them.

    Args:
        width: Channels.
        dilations: Of the branches.

    Example:
        >>> ContextGroup(8, (1, 2))(torch.zeros(1, 8, 4, 4)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(self, width: int, dilations: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=d, dilation=d, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            for d in dilations
        )
        self.attention = nn.Conv2d(width, len(dilations), 1)

    def forward(self, x: Float[Tensor, "n width rows columns"]) -> Float[Tensor, "n width rows columns"]:
        weights = self.attention(x).softmax(1)  # a, (n, branches, rows, columns)
        return x + sum(weights[:, i : i + 1] * branch(x) for i, branch in enumerate(self.branches))


class SkeletonUNet(nn.Module):
    """Logits of the skeleton at full, half and quarter size.

    Args:
        inputs: Channels of a picture: 1 for the shape, 2 with its distance transform.
        widths: Channels of each level, finest first, two levels or more.
        dilations: Of the context groups after every encoder level but the first; none leaves them out.

    Example:
        >>> [each.shape[-1] for each in SkeletonUNet(2, (8, 16, 16))(torch.zeros(1, 2, 16, 16))]
        [16, 8, 4]
    """

    def __init__(self, inputs: int = 2, widths: Sequence[int] = (16, 32, 64), dilations: Sequence[int] = (1, 2, 4)):
        super().__init__()
        self.config: dict[str, Any] = {"inputs": inputs, "widths": list(widths), "dilations": list(dilations)}
        self.down = nn.ModuleList(_double(a, b) for a, b in zip((inputs, *widths), widths, strict=False))
        self.context = nn.ModuleList(
            ContextGroup(width, dilations) if dilations else nn.Identity() for width in widths[1:]
        )
        self.up = nn.ModuleList(_double(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths[:3])  # finest first

    @property
    def multiple(self) -> int:
        """What both sides of a picture have to be a multiple of."""
        return int(2 ** (len(self.down) - 1))

    def forward(self, x: Float[Tensor, "n inputs rows columns"]) -> list[Float[Tensor, "n 1 _ _"]]:
        """Logits, finest first; sides have to be a ``multiple``."""
        levels = [self.down[0](x)]
        for down, context in zip(list(self.down)[1:], self.context, strict=True):
            levels.append(context(down(F.max_pool2d(levels[-1], 2))))
        outputs = [levels.pop()]  # coarsest first
        for up in self.up:
            above = F.interpolate(outputs[-1], scale_factor=2.0, mode="nearest")
            outputs.append(up(torch.cat([above, levels.pop()], 1)))
        return [head(each) for head, each in zip(self.heads, reversed(outputs), strict=False)]


def _double(inputs: int, outputs: int) -> nn.Module:
    """Two 3 x 3 convolutions, each normalised over the batch and rectified."""
    parts: list[nn.Module] = []
    for width in (inputs, outputs):
        parts += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts)
