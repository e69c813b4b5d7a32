"""Pictures of solid shapes with their true depth, rendered here: heads of ellipsoids with a nose and ears, lit from somewhere.

Rays meet ellipsoids in closed form, so that depth and normals are exact. Shapes turn about the vertical axis; colours, sizes,
places of the parts and light are random, the background is white.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.core.numerics.pinhole import Camera, turn
from photopic.data.folder import load_picture, picture_files
from photopic.data.picture_file import open_picture
from photopic.data.pixels import from_pixels

SHAPES = "rendered-shapes"
MOST = 4000  # shapes where no number is given
YAW = 0.5236  # radians to either side: 30 degrees


@dataclass(frozen=True, eq=False)
class DepthPictures:
    """Pictures with the depth of every pixel.

    Attributes:
        images: In -1 to 1.
        depth: z of the surface, the camera's far plane where there is none.
        camera: That took them.
        yaw: How far each object is turned, in radians; None where nobody knows.

    Raises:
        DataError: If sizes or numbers differ, or a depth is not between the camera's near and far planes.

    Example:
        >>> rendered_shapes(2, seed=0).images.shape
        torch.Size([2, 3, 32, 32])
    """

    images: Float[Tensor, "n 3 side side"]
    depth: Float[Tensor, "n side side"]
    camera: Camera
    yaw: Float[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        sides = (self.camera.side, self.camera.side)
        angles = len(self.images) if self.yaw is None else len(self.yaw)
        if (
            self.images.shape[2:] != sides
            or self.depth.shape != (len(self.images), *sides)
            or angles != len(self.images)
        ):
            raise DataError(
                f"pictures with depth: expected {len(self.images)} of {sides}, as the camera's, found pictures "
                f"{tuple(self.images.shape)}, depths {tuple(self.depth.shape)} and {angles} angles; bring them to one size"
            )
        if not bool(((self.depth >= self.camera.near) & (self.depth <= self.camera.far)).all()):
            raise DataError(
                f"pictures with depth: expected depths of {self.camera.near} to {self.camera.far}, found "
                f"{self.depth.min():.3g} to {self.depth.max():.3g}; scale them, and give the background the far plane"
            )

    @property
    def mask(self) -> Bool[Tensor, "n side side"]:
        """Where there is a surface."""
        return self.depth < self.camera.far

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of pixels and depths."""
        parts = [
            each.contiguous().numpy().tobytes() for each in (self.images, self.depth, self.yaw) if each is not None
        ]
        return hashlib.sha256(b"".join(parts) + repr(self.camera).encode()).hexdigest()


def rendered_shapes(count: int, *, seed: int, side: int = 32, yaw: Float[Tensor, " n"] | None = None) -> DepthPictures:
    """Draw shapes; the same seed draws the same.

    Args:
        count: How many.
        seed: Of shapes, colours, light and, unless they are given, angles.
        side: Of a picture in pixels.
        yaw: How far each is turned, in radians; None draws from -30 to 30 degrees.

    Example:
        >>> turned = rendered_shapes(1, seed=0, yaw=torch.zeros(1))
        >>> 0.1 < turned.mask.float().mean().item() < 0.9
        True
    """
    draw, camera = torch.Generator().manual_seed(seed), Camera(side)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=draw)

    angles = between(-YAW, YAW)
    angles = angles if yaw is None else yaw
    width, height, deep = between(0.22, 0.32), between(0.27, 0.36), between(0.22, 0.32)
    zero, nose, ear, chin = torch.zeros(count), between(0.05, 0.1), between(0.06, 0.11), between(0.1, 0.16)
    nose_at, ear_at = between(-0.03, 0.1), between(-0.15, 0.05)
    centres = torch.stack([
        torch.stack([zero, zero, zero], -1),
        torch.stack([zero, nose_at, -deep], -1),  # -z is towards the camera
        torch.stack([-width, ear_at, zero], -1),
        torch.stack([width, ear_at, zero], -1),
        torch.stack([zero, 0.75 * height, -0.45 * deep], -1),
    ], 1)  # fmt: skip  # (n, 5, 3): head, nose, two ears, chin
    radii = torch.stack([
        torch.stack([width, height, deep], -1),
        torch.stack([0.8 * nose, 1.3 * nose, 1.2 * nose], -1),
        *(2 * [torch.stack([0.6 * ear, ear, 0.5 * ear], -1)]),
        torch.stack([chin, 0.6 * chin, chin], -1),
    ], 1)  # fmt: skip
    skin, other = between(0.35, 1.0, 3), between(0.2, 1.0, 3)
    colours = torch.stack([skin, 0.7 * skin + 0.3 * other, other, other, skin], 1)  # (n, parts, 3)
    light = F.normalize(torch.stack([between(-0.8, 0.8), between(-0.8, 0.3), torch.full((count,), -1.0)], -1), dim=-1)
    ambient, eye_at = between(0.35, 0.6), between(0.25, 0.45)
    fine = Camera(2 * side)  # pictures are means of four rays a pixel; depths are of the ray through its middle
    parts = [each.split(256) for each in (angles, centres, radii, colours, light, ambient, eye_at)]
    images = F.avg_pool2d(torch.cat([_shaded(fine, each) for each in zip(*parts, strict=True)]), 2)
    depth = torch.cat([_met(camera, *each)[0] for each in zip(*parts[:3], strict=True)])
    return DepthPictures(images, depth, camera, angles)


def _met(camera: Camera, yaw: Tensor, centres: Tensor, radii: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Depth, part and place in the shape's own frame of what each ray meets first; the far plane where it meets nothing."""
    count = len(yaw)
    rays = camera.rays().expand(count, -1, -1, -1)
    way = turn(rays, -yaw)  # (n, h, w, 3), the camera turns about the shape
    eye = turn(rays.new_tensor([0.0, 0.0, -camera.distance]).expand(count, 1, 3), -yaw)[:, :, None]  # (n, 1, 1, 3)
    depths = []
    for centre, size in zip(centres.unbind(1), radii.unbind(1), strict=True):
        start, along = (eye - centre[:, None, None]) / size[:, None, None], way / size[:, None, None]
        a, b, c = (along * along).sum(-1), (start * along).sum(-1), (start * start).sum(-1) - 1
        inside = b * b - a * c  # discriminant of a t^2 + 2 b t + c
        depths.append(torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / a, camera.far))
    depth, part = torch.stack(depths).min(0)
    return depth, part, eye + depth[..., None] * way


def _shaded(camera: Camera, parts: tuple[Tensor, ...]) -> Tensor:
    """Lambert's shading of what is met, -1 to 1."""
    yaw, centres, radii, colours, light, ambient, eye_at = parts
    depth, part, place = _met(camera, yaw, centres, radii)
    rows = torch.arange(len(yaw))[:, None, None]
    outward = F.normalize((place - centres[rows, part]) / radii[rows, part].square(), dim=-1)
    facing = (turn(outward, yaw) * light[:, None, None]).sum(-1).clamp_min(0)
    own = (place - centres[rows, part]) / radii[rows, part]  # on the unit sphere
    across = own[..., 0].abs() - eye_at[:, None, None]
    is_eye = (part == 0) & (torch.hypot(across, own[..., 1] + 0.25) < 0.14) & (own[..., 2] < 0)
    colour = torch.where(is_eye[..., None], 0.0, colours[rows, part])  # (n, h, w, 3)
    shade = ambient[:, None, None] + (1 - ambient[:, None, None]) * facing
    picture = torch.where((depth < camera.far)[..., None], 2 * colour * shade[..., None] - 1, 1.0)
    return picture.permute(0, 3, 1, 2)


def read_shapes(word: str) -> DepthPictures:
    """``rendered-shapes``, ``rendered-shapes:1000`` for so many, or a folder.

    Args:
        word: A folder holds ``images`` and ``depth``: square pictures and, of the same names, PNGs of 16 bits whose values go
            evenly from the near plane, 0, to the far plane, 65535, which is the background; ``angles.json`` may say how far each
            object is turned, in degrees by file name.

    Raises:
        DataError: If it is neither, or a depth or an angle is missing or of another kind.
    """
    name, _, count = word.partition(":")
    if name == SHAPES and (not count or (count.isdigit() and int(count) > 0)):
        return rendered_shapes(int(count or MOST), seed=1)
    folder = Path(word)
    if not (folder / "images").is_dir():
        raise DataError(
            f"{word}: expected {SHAPES}, {SHAPES}:1000 for so many, or a folder with images and depth; spell it so"
        )
    files = picture_files(folder / "images")
    camera = Camera(open_picture(files[0]).width)
    depths = [_read_depth(folder / "depth" / f"{file.stem}.png", camera) for file in files]
    images = from_pixels(np.stack([load_picture(file, camera.side) for file in files]))
    angles = None
    if (folder / "angles.json").is_file():
        stated = json.loads(read_file(folder / "angles.json", DataError))
        if missing := [file.name for file in files if not isinstance(stated.get(file.name), int | float)]:
            raise DataError(f"{folder / 'angles.json'}: expected degrees for each picture, found none for {missing[0]}")
        angles = torch.tensor([stated[file.name] for file in files]).deg2rad()
    return DepthPictures(images, torch.stack(depths), camera, angles)


def _read_depth(file: Path, camera: Camera) -> Float[Tensor, "side side"]:
    picture = open_picture(file)
    if picture.mode not in ("I;16", "I") or picture.size != (camera.side, camera.side):
        raise DataError(
            f"{file}: expected a gray 16-bit PNG of {camera.side} pixels a side, found {picture.mode} of {picture.size}; save one"
        )
    share = torch.from_numpy(np.asarray(picture).astype(np.float32)) / 65535
    return (camera.near + share * (camera.far - camera.near)).clamp(camera.near, camera.far)
