"""How far a depth is from another: scale-invariant depth error and mean angle of normals (Unsup3D, arXiv:1911.11130)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def depth_error(
    found: Float[Tensor, "n h w"], true: Float[Tensor, "n h w"], mask: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Scale-invariant depth error (SIDE) of each picture: the standard deviation of log found - log true where the mask is.

    Example:
        >>> depth = torch.rand(1, 4, 4, dtype=torch.float64) + 2
        >>> round(depth_error(1.5 * depth, depth, torch.ones(1, 4, 4, dtype=torch.bool)).item(), 9)
        0.0
    """
    ratio = torch.where(mask, found.log() - true.log(), 0.0)
    count = mask.sum((1, 2)).clamp_min(1)
    mean = ratio.sum((1, 2)) / count
    spread = torch.where(mask, ratio - mean[:, None, None], 0.0)
    return (spread.square().sum((1, 2)) / count).sqrt()


def normal_error(
    found: Float[Tensor, "n h w 3"], true: Float[Tensor, "n h w 3"], mask: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Mean angle (MAD) between normals where the mask is, in degrees, of each picture; vectors need no unit length.

    Example:
        >>> normal = torch.rand(1, 2, 2, 3)
        >>> normal_error(normal, 3 * normal, torch.ones(1, 2, 2, dtype=torch.bool)).item() < 0.01
        True
    """
    # of the tangent, since the cosine is flat where normals agree
    angle = torch.atan2(torch.linalg.cross(found, true).norm(dim=-1), (found * true).sum(-1)).rad2deg()
    return torch.where(mask, angle, 0.0).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)


def eroded(mask: Bool[Tensor, "n h w"], pixels: int = 1) -> Bool[Tensor, "n h w"]:
    """A mask without the pixels that lie within so many of its edge; the picture's border is an edge too.

    Example:
        >>> int(eroded(torch.ones(1, 5, 5, dtype=torch.bool)).sum())
        9
    """
    outside = F.pad((~mask).float(), (pixels,) * 4, value=1.0)
    return F.max_pool2d(outside[:, None], 2 * pixels + 1, stride=1)[:, 0] == 0
