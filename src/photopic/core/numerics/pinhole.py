"""A pinhole camera that looks at a turning object: rays, points of depths, their normals, and pictures warped between views.

Coordinates are the camera's: x right, y down, z forward; depth is z, not the length of the ray. Normals are the cross product of
central differences, horizontal by vertical, so that they point along +z, **away** from the camera, and both sides of a comparison
have to agree in it (GeoD, arXiv:2209.15637, as released with PoF3D).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-24  # added to the squared length of a normal: with 1e-7 of the length at 64 pixels angles are off by a degree


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and how far it sees.

    Attributes:
        side: Of a picture, in pixels.
        fov: Field of view in degrees, from edge to edge.
        distance: To the centre that objects turn about.
        near: Depth of the nearest surface.
        far: Depth of the background.

    Example:
        >>> Camera(2, fov=90.0).rays()[0, 0]
        tensor([-0.5000, -0.5000,  1.0000])
    """

    side: int = 32
    fov: float = 18.837
    distance: float = 2.775
    near: float = 2.25
    far: float = 3.3

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.side / (2 * math.tan(math.radians(self.fov) / 2))

    def rays(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "side side 3"]:
        """Through the centre of each pixel, with z = 1: times the depth it is a point."""
        line = (torch.arange(self.side, dtype=dtype) + 0.5 - self.side / 2) / self.focal
        down, right = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([right, down, torch.ones_like(right)], -1)

    def points(self, depth: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w 3"]:
        """Where the surface of a depth is."""
        return depth[..., None] * self.rays(depth.dtype).to(depth.device)

    def turned(self, points: Float[Tensor, "n *s 3"], yaw: Float[Tensor, " n"]) -> Float[Tensor, "n *s 3"]:
        """Points once the object has turned by ``yaw`` radians about the vertical axis through the centre."""
        centre = points.new_tensor([0.0, 0.0, self.distance])
        return (turn(points - centre, yaw)) + centre


def turn(vectors: Float[Tensor, "n *s 3"], yaw: Float[Tensor, " n"]) -> Float[Tensor, "n *s 3"]:
    """Vectors turned by ``yaw`` radians about the vertical axis through the origin."""
    shape = (-1,) + (1,) * (vectors.ndim - 2)
    cos, sin = yaw.cos().view(shape), yaw.sin().view(shape)
    x, y, z = vectors.unbind(-1)
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1)


def normals(depth: Float[Tensor, "n h w"], camera: Camera) -> Float[Tensor, "n h w 3"]:
    """Unit normals of a depth, away from the camera; pixels at the border have (0, 0, 1).

    Example:
        >>> normals(torch.full((1, 4, 4), 2.7), Camera(4))[0, 1, 1].tolist()
        [0.0, 0.0, 1.0]
    """
    points = camera.points(depth)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]  # (n, h - 2, w - 2, 3)
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    inner = torch.linalg.cross(across, down)
    inner = inner / (inner.square().sum(-1, keepdim=True) + TINY).sqrt()
    border = points.new_tensor([0.0, 0.0, 1.0]).expand(*depth.shape, 3)
    where = F.pad(torch.ones_like(depth[:, 1:-1, 1:-1], dtype=torch.bool), (1, 1, 1, 1))  # (n, h, w)
    return torch.where(where[..., None], F.pad(inner, (0, 0, 1, 1, 1, 1)), border)


def warped(
    picture: Float[Tensor, "n c h w"],
    depth: Float[Tensor, "n h w"],
    target_depth: Float[Tensor, "n h w"],
    yaw: Float[Tensor, " n"],
    camera: Camera,
    *,
    tolerance: float = 0.05,
) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
    """A picture as it would look once the object has turned: each pixel of the target looks up where its point was.

    Args:
        picture: Of the source view.
        depth: Of the source view; says which points are hidden there.
        target_depth: Of the target view.
        yaw: How far the object turns from source to target, in radians.
        camera: Of both.
        tolerance: How far behind the source's surface a point may lie and still count as seen.

    Returns:
        The picture and where it is valid: in frame, in front of the background and not hidden.
    """
    points = camera.turned(camera.points(target_depth), -yaw)  # as they lie in the source view
    at = points[..., :2] / points[..., 2:] * (2 * camera.focal / camera.side)  # (n, h, w, 2) in -1 to 1
    both = torch.cat([picture, depth[:, None]], 1)
    found = F.grid_sample(both, at, align_corners=False, padding_mode="border")
    seen = (points[..., 2] - found[:, -1]).abs() < tolerance
    inside = (at.abs() < 1).all(-1) & (target_depth < camera.far - tolerance)
    return found[:, :-1], inside & seen
