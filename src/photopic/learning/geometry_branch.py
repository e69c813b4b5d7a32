"""A network that reads the depth of a picture: what a discriminator's geometry branch says, and what judges depths independently.

It learns from pictures whose depth is known; a symmetric object's inverse renderer (Unsup3D) would take its place where none is.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.numerics.pinhole import Camera, normals

WIDTHS = (16, 32, 48, 64)


class GeometryBranch(nn.Module):
    """An encoder and decoder with skips, from a picture to its depth and to where its surface is.

    Args:
        camera: That took the pictures; depths lie between its planes.
        seed: Of the weights.

    Example:
        >>> depth, mask = GeometryBranch(Camera(16), seed=0)(torch.zeros(2, 3, 16, 16))
        >>> depth.shape, mask.shape
        (torch.Size([2, 16, 16]), torch.Size([2, 16, 16]))
    """

    def __init__(self, camera: Camera, *, seed: int):
        super().__init__()
        self.camera = camera
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                nn.Conv2d(one, other, 3, padding=1) for one, other in zip((3, *WIDTHS), WIDTHS, strict=False)
            )
            self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in WIDTHS)
            self.up = nn.ModuleList(nn.Conv2d(low + high, high, 3, padding=1) for high, low in pairwise(WIDTHS))
            self.last = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(
        self, pictures: Float[Tensor, "n 3 side side"]
    ) -> tuple[Float[Tensor, "n side side"], Float[Tensor, "n side side"]]:
        """Depth between the camera's planes, and logits of the surface's mask."""
        kept, found = [], pictures
        for level, (convolution, norm) in enumerate(zip(self.down, self.norms, strict=True)):
            found = F.leaky_relu(norm(convolution(F.avg_pool2d(found, 2) if level else found)), 0.2)
            kept.append(found)
        for high, convolution in zip(reversed(kept[:-1]), reversed(self.up), strict=True):
            found = F.interpolate(found, scale_factor=2, mode="bilinear", align_corners=False)
            found = F.leaky_relu(convolution(torch.cat([found, high], 1)), 0.2)
        depth, mask = self.last(found).unbind(1)
        return self.camera.near + (self.camera.far - self.camera.near) * depth.sigmoid(), mask

    def loss(
        self,
        pictures: Float[Tensor, "n 3 side side"],
        depth: Float[Tensor, "n side side"],
        mask: Bool[Tensor, "n side side"],
    ) -> Float[Tensor, ""]:
        """How far its reading is from true depths: depth and normals on the mask, and the mask."""
        found, logits = self(pictures)
        total = mask.sum().clamp_min(1)
        far = torch.where(mask, (found - depth).abs(), 0.0).sum() / total
        turned = (normals(found, self.camera) - normals(depth, self.camera)).abs().sum(-1)
        inner = F.max_pool2d((~mask).float()[:, None], 3, 1, 1)[:, 0] == 0  # differences do not cross the outline
        crooked = torch.where(inner, turned, 0.0).sum() / inner.sum().clamp_min(1)
        return 10 * far + crooked + F.binary_cross_entropy_with_logits(logits, mask.float())
