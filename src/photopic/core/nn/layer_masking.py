"""Layer masking: a network sees only part of a picture because activations are kept out layer by layer, not by painting pixels.

Every convolution and pooling hands the mask on with its own kernel and stride; outside of it activations are 0, and before a
convolution the border is filled with the mean of the neighbours inside, so that no edge of a fill colour is seen. A transformer
drops the tokens of masked patches.

Paper: Towards Improved Input Masking for Convolutional Neural Networks (arXiv:2211.14646). Changed: one mask a resolution, which
only grows, where branches of a network meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.errors import ModelError

Mask = Float[Tensor, "n 1 height width"]  # 1 is seen, 0 is not


@contextmanager
def masked_layers(network: nn.Module, mask: Mask) -> Iterator[None]:
    """A block in which a convolutional network sees each picture of the batch only inside its mask.

    Args:
        network: With convolutions as modules.
        mask: Of the size of what it reads.

    Raises:
        ModelError: If it has no convolution.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1))
        >>> seen = torch.zeros(1, 1, 4, 4); seen[..., :2] = 1
        >>> picture = torch.rand(1, 1, 4, 4); other = torch.where(seen > 0, picture, torch.rand(1, 1, 4, 4))
        >>> with masked_layers(net, seen):
        ...     torch.equal(net(picture), net(other))
        True
    """
    modules = [part for part in network.modules() if not any(part.children())]  # what computes
    if not any(isinstance(part, nn.Conv2d) for part in modules):
        raise ModelError("layer masking: expected a network with convolutions, found none; tokens are dropped instead")
    masks: dict[tuple[int, ...], Mask] = {}

    def begin(part: nn.Module, given: Any) -> None:  # every run of the network starts from the mask of the picture
        masks.clear()
        masks[tuple(mask.shape[-2:])] = mask

    with ExitStack() as stack:
        stack.callback(network.register_forward_pre_hook(begin).remove)
        for part in modules:
            if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                stack.callback(part.register_forward_pre_hook(_before(masks)).remove)
            stack.callback(part.register_forward_hook(_after(masks)).remove)
        yield


def filled(x: Float[Tensor, "n c height width"], mask: Mask, rounds: int) -> Float[Tensor, "n c height width"]:
    """Values inside a mask and around it: each round gives the next ring the mean of its neighbours; 0 further out.

    Example:
        >>> row = torch.tensor([[[[2.0, 9.0, 9.0]]]])
        >>> filled(row, torch.tensor([[[[1.0, 0.0, 0.0]]]]), rounds=1)
        tensor([[[[2., 2., 0.]]]])
    """
    x, ones = x * mask, torch.ones(1, 1, 3, 3, dtype=x.dtype, device=x.device)
    for _ in range(rounds):
        total = F.conv2d(x, ones.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        count = F.conv2d(mask, ones, padding=1)  # neighbours that are inside, (n, 1, height, width)
        x = x + (1 - mask) * total / count.clamp(min=1)
        mask = (mask + count).clamp(max=1)
    return x


def dropped_tokens(mask: Mask, tokens: int) -> tuple[Tensor, int]:
    """Which of a transformer's tokens are seen under one mask, and how many come before the patches.

    Args:
        mask: Of one picture; a patch with any pixel inside is seen.
        tokens: Of the transformer, class and register tokens among them.
    """
    height, width = mask.shape[-2:]
    side = next(each for each in range(1, max(height, width) + 1) if (height // each) * (width // each) <= tokens)
    patch = (height // (height // side), width // (width // side))  # the largest with as many patches
    seen = F.max_pool2d(mask, patch).flatten() > 0  # (patches,)
    before = tokens - len(seen)
    return torch.cat([torch.ones(before, dtype=torch.bool, device=mask.device), seen]), before


def _before(masks: dict[tuple[int, ...], Mask]) -> Any:
    def hook(part: nn.Module, given: tuple[Any, ...]) -> Any:
        x = given[0]
        mask = masks.get(tuple(x.shape[-2:]))
        if mask is None:
            return None
        # as many rings as the kernel is wide, as published; a pool only sees what is inside
        rounds = int(part.kernel_size[0]) if isinstance(part, nn.Conv2d) and part.kernel_size[0] > 1 else 0
        return (filled(x, mask, rounds), *given[1:])

    return hook


def _after(masks: dict[tuple[int, ...], Mask]) -> Any:
    def hook(part: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim != 4 or not given:
            return None
        before, size = masks.get(tuple(given[0].shape[-2:])), (output.shape[-2], output.shape[-1])
        if isinstance(part, nn.AdaptiveAvgPool2d) and before is not None:
            return output / F.adaptive_avg_pool2d(before, size).clamp(min=1e-8)  # the mean of what is inside
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and before is not None:
            handed = _handed_on(part, before)
            masks[size] = torch.maximum(masks[size], handed) if size in masks else handed
        return output * masks[size] if size in masks else None

    return hook


def _handed_on(part: Any, mask: Mask) -> Float[Tensor, "n 1 rows columns"]:
    """A position is inside if anything of what it looks at is: a max-pool with the part's own kernel, stride and padding."""
    kernel, stride, padding, dilation = (
        _pair(getattr(part, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    wide = F.pad(mask, (padding[1], padding[1], padding[0], padding[0]))
    return F.max_pool2d(wide, kernel, stride, dilation=dilation, ceil_mode=getattr(part, "ceil_mode", False))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
