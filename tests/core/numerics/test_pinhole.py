"""Depths, normals and warps against planes, spheres and the renderer of shapes."""

from __future__ import annotations

import math

import pytest
import torch

from photopic.core.numerics.pinhole import Camera, normals, turn, warped
from photopic.data.rendered_shapes import rendered_shapes
from photopic.metrics.depth import depth_error, eroded, normal_error

CAMERA = Camera(64)


def everywhere(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


@pytest.mark.parametrize("tilt", [0.0, 20.0, 50.0])
def test_a_tilted_plane_has_its_normal(tilt: float) -> None:
    along = torch.tensor([math.sin(math.radians(tilt)), 0.0, math.cos(math.radians(tilt))], dtype=torch.float64)
    depth = 2.775 * along[2] / (CAMERA.rays(torch.float64) @ along)  # n . (d r) = n . centre
    found = normals(depth[None], CAMERA)[:, 1:-1, 1:-1]
    assert normal_error(found, along.expand_as(found), everywhere(1, 62, 62)).item() < 1e-5  # degrees


def test_a_sphere_has_inward_normals() -> None:
    rays = CAMERA.rays(torch.float64)
    centre = torch.tensor([0.0, 0.0, 2.775], dtype=torch.float64)
    a, b, c = rays.square().sum(-1), rays @ centre, centre @ centre - 0.3**2
    inside = b * b - a * c
    mask = inside > 0
    depth = torch.where(mask, (b - inside.clamp_min(0).sqrt()) / a, CAMERA.far)[None]
    true = centre - CAMERA.points(depth)  # inward
    angle = normal_error(normals(depth, CAMERA), true, eroded(mask[None], 2))
    assert angle.item() < 0.2


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-2), (torch.float64, 1e-5)])
def test_a_map_of_normals_has_no_angle_to_itself(dtype: torch.dtype, most: float) -> None:
    across = torch.linspace(-1, 1, 64, dtype=dtype)
    depth = (2.7 - 0.3 * torch.exp(-3 * (across**2 + across[:, None] ** 2)))[None]
    found = normals(depth, CAMERA)
    assert (found.norm(dim=-1) - 1).abs().max() < 1e-6  # 1e-4 where 1e-7 is added to the length
    assert normal_error(found, found, everywhere(1, 64, 64)).item() <= most


def test_depth_error_knows_no_scale_and_sees_all_else() -> None:
    shapes = rendered_shapes(2, seed=0, side=32)
    depth, mask = shapes.depth.double(), shapes.mask
    assert depth_error(3.7 * depth, depth, mask).max() < 1e-12
    assert torch.allclose(
        depth_error(0.2 * depth.roll(1, 2), depth, mask), depth_error(depth.roll(1, 2), depth, mask), atol=1e-12
    )
    assert depth_error(depth.roll(1, 2), depth, mask).min() > 1e-3


def test_depths_of_the_renderer_are_what_its_camera_means() -> None:
    """A renderer that turned the other way, or told lengths of rays, would not warp onto its own other view."""
    yaw = torch.tensor([-0.25, 0.2])
    one, other = (rendered_shapes(2, seed=4, yaw=each) for each in (yaw, -yaw))
    found, valid = warped(one.images, one.depth, other.depth, -2 * yaw, one.camera)
    valid = valid & eroded(other.mask)
    # shading changes as heads turn, colours stay
    apart = (found - other.images).abs().mean(1)[valid].mean()
    wrong, seen = warped(one.images, one.depth, other.depth, 2 * yaw, one.camera)
    seen = seen & eroded(other.mask)
    assert valid.float().mean() > 0.15
    assert apart < 0.25 and apart < 0.8 * (wrong - other.images).abs().mean(1)[seen].mean()


def test_a_warp_without_turning_changes_nothing_and_one_there_and_back_little() -> None:
    across = torch.linspace(-1, 1, 64)
    depth = (2.8 - 0.2 * torch.exp(-3 * (across**2 + across[:, None] ** 2)))[None]
    picture = torch.stack([across.expand(64, 64), across[:, None].expand(64, 64)])[None]
    still, valid = warped(picture, depth, depth, torch.zeros(1), CAMERA)
    assert valid.all() and torch.allclose(still, picture, atol=1e-4)
    # a sphere's depth is the same from every side
    rays = CAMERA.rays()
    b, a = rays[..., 2] * 2.775, rays.square().sum(-1)
    inside = b * b - a * (2.775**2 - 0.3**2)
    sphere = torch.where(inside > 0, (b - inside.clamp_min(0).sqrt()) / a, CAMERA.far)[None]
    there, seen = warped(picture, sphere, sphere, torch.tensor([0.2]), CAMERA)
    back, seen_again = warped(there, sphere, sphere, torch.tensor([-0.2]), CAMERA)
    both = eroded(seen & seen_again, 4)
    assert both.sum() > 100 and (back - picture).abs().amax(1)[both].mean() < 0.02
    assert (there - picture).abs().amax(1)[both].mean() > 0.05


def test_turning_is_a_rotation() -> None:
    vectors, yaw = torch.randn(2, 5, 3, dtype=torch.float64), torch.tensor([0.3, -1.2], dtype=torch.float64)
    turned = turn(vectors, yaw)
    assert torch.allclose(turned.norm(dim=-1), vectors.norm(dim=-1))
    assert torch.allclose(turn(turned, -yaw), vectors)
