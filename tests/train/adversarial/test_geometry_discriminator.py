"""The geometry-aware discriminator: its losses, its schedule, what gradients reach, and the generator's volumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import photopic
from photopic.core.errors import DataError, FieldError, ModelError
from photopic.core.numerics.pinhole import Camera
from photopic.data.pixels import to_pixels
from photopic.data.rendered_shapes import DepthPictures, read_shapes, rendered_shapes
from photopic.models.volume_generator import Rendered, VolumeConfig, VolumeGenerator, composited, rendered
from photopic.train.adversarial.geometry_discriminator import (
    PAPER,
    Discriminator,
    GeometryConfig,
    GeometryLearner,
    normal_disagreement,
)

TINY = GeometryConfig(steps=3, fit=1, fitted=3, batch=2, channels=8, codes=4, samples=4, full=1)


@pytest.fixture(scope="module")
def heads() -> DepthPictures:
    return rendered_shapes(6, seed=0, side=16)


def test_weights_of_a_ray_add_up_to_one_at_most_and_a_slab_is_where_it_is() -> None:
    density = 5 * torch.rand(50, 16, generator=torch.Generator().manual_seed(0))
    assert bool((composited(density, torch.linspace(1, 2, 16)).sum(-1) <= 1 + 1e-6).all())
    camera, samples = Camera(8), 16
    grid = torch.zeros(1, 4, 32, 32, 32)
    grid[:, 3] = -100.0
    grid[:, 3, 16:] = 1000.0  # behind the middle of the grid: a wall at the distance of the centre
    found = rendered(grid, torch.zeros(1), camera, samples)
    width = (camera.far - camera.near) / samples
    assert bool(((found.depth - camera.distance).abs() <= width).all()) and bool((found.alpha > 0.999).all())
    nothing = rendered(torch.full((1, 4, 8, 8, 8), -100.0), torch.zeros(1), camera, samples)
    assert torch.allclose(nothing.depth, torch.tensor(camera.far)) and torch.allclose(nothing.pictures, torch.ones(()))


def test_a_turned_volume_shows_its_side() -> None:
    grid = torch.full((1, 4, 32, 32, 32), -100.0)
    grid[:, 3, 4:28, 12:20, 14:18] = 1000.0  # deep, low and thin: wide once it is turned by a quarter
    front, side = (rendered(grid, torch.tensor([yaw]), Camera(32), 16).alpha.sum() for yaw in (0.0, 1.57))
    assert side > 3 * front


def test_the_schedule_is_the_published_one() -> None:
    assert [round(PAPER.strength(seen), 9) for seen in (0, 20_000, 40_000, 60_000, 1_999_999, 2_000_000)] == [
        0.0, 0.0, 0.05, 0.1, 0.1, 0.0,
    ]  # fmt: skip
    with pytest.raises(FieldError, match="full: expected more than begin"):
        GeometryConfig(begin=10, full=10)


def test_normals_disagree_by_their_differences_alone() -> None:
    depth = rendered_shapes(2, seed=1, side=16).depth
    mask = torch.ones_like(depth, dtype=torch.bool)
    assert normal_disagreement(depth, depth, mask, Camera(16)) == 0
    assert normal_disagreement(depth, depth.flip(2), mask, Camera(16)) > 0.1
    assert normal_disagreement(depth, depth.flip(2), ~mask, Camera(16)) == 0  # nothing seen by both


@pytest.mark.parametrize("detached", [False, True])
def test_geometry_moves_the_generator_and_not_the_branch(heads: DepthPictures, detached: bool) -> None:
    learner = GeometryLearner(heads, replace(TINY, detach_image=detached, branch="random"))
    learner.branch.requires_grad_(False)
    grid = learner.model.network(learner.model.draw(2, seed=0)).detach()
    grid = (
        torch.stack([grid[:, 0], grid[:, 1], grid[:, 2], grid[:, 3] + 6], 1)
    ).requires_grad_()  # so that something is seen
    seen = rendered(grid, torch.zeros(2), learner.camera, 8)
    learner.disagreement(seen).backward()
    assert all(each.grad is None for each in learner.branch.parameters())
    assert grid.grad is not None and bool(grid.grad[:, 3].any())  # through the depth
    assert bool(grid.grad[:, :3].any()) != detached  # through the picture: colours touch no depth


def test_a_flat_branch_pulls_to_a_plane_whatever_it_reads(heads: DepthPictures) -> None:
    learner = GeometryLearner(heads, replace(TINY, branch="flat"))
    shape, draw = (2, 16, 16), torch.Generator().manual_seed(0)
    learner.branch.forward = lambda pictures: (2 + torch.rand(shape, generator=draw), torch.ones(shape))  # type: ignore[method-assign]
    plane = Rendered(torch.zeros(2, 3, 16, 16), torch.full(shape, 2.0), torch.ones(shape))
    assert learner.disagreement(plane) < 1e-5
    assert learner.disagreement(plane._replace(depth=2 + torch.rand(shape, generator=draw))) > 0.1


def test_steps_touch_what_they_should(heads: DepthPictures) -> None:
    learner = GeometryLearner(heads, replace(TINY, steps=9, branch_until=2))

    def changed(step: int) -> set[str]:
        before = {name: [each.clone() for each in network.parameters()] for name, network in learner.networks.items()}
        learner.step(step)
        return {
            name for name, network in learner.networks.items()
            if any(not torch.equal(*pair) for pair in zip(before[name], network.parameters(), strict=True))
        }  # fmt: skip

    assert changed(0) == {"generator", "codes", "branch"}  # fitting
    assert changed(1) == {"generator", "discriminator", "branch"}
    assert changed(2) == {"generator", "discriminator"}  # the branch is frozen


def test_the_third_task_is_nothing_where_nothing_turns(heads: DepthPictures) -> None:
    learner = GeometryLearner(heads, replace(TINY, views=1.0))
    codes = learner.model.draw(2, seed=0)
    still = learner.model.render(codes, torch.zeros(2))
    assert learner.view_error(still, codes, torch.zeros(2)) < 1e-4
    yaw = torch.full((2,), 0.3)
    assert learner.view_error(learner.model.render(codes, yaw), codes, yaw) >= 0
    assert "loss" in learner.step(0) and "loss" in learner.step(1)


def test_the_spread_over_the_batch_is_seen() -> None:
    network, one = Discriminator(16, seed=0), rendered_shapes(2, seed=3, side=16).images
    same = network(one[:1].expand(2, -1, -1, -1))[0]
    assert (same - network(one)[0]).abs() > 1e-5  # 1e-4 here; 1e-8 where no spread is seen


def test_a_folder_is_read_as_it_was_written(tmp_path: Path, heads: DepthPictures) -> None:
    for name in ("images", "depth"):
        (tmp_path / name).mkdir()
    near, far = heads.camera.near, heads.camera.far
    for number, (image, depth) in enumerate(zip(heads.images, heads.depth, strict=True)):
        Image.fromarray(to_pixels(image[None])[0]).save(tmp_path / "images" / f"{number}.png")
        levels = ((depth - near) / (far - near) * 65535).round().numpy().astype(np.uint16)
        Image.fromarray(levels).save(tmp_path / "depth" / f"{number}.png")
    found = read_shapes(str(tmp_path))
    assert (
        found.yaw is None
        and torch.allclose(found.depth, heads.depth, atol=1e-4)
        and torch.equal(found.mask, heads.mask)
    )
    assert (found.images - heads.images).abs().max() < 1 / 127
    assert heads.yaw is not None
    degrees = {f"{number}.png": angle for number, angle in enumerate(heads.yaw.rad2deg().tolist())}
    (tmp_path / "angles.json").write_text(json.dumps(degrees))
    assert torch.allclose(read_shapes(str(tmp_path)).yaw, heads.yaw)  # type: ignore[arg-type]
    (tmp_path / "angles.json").write_text("{}")
    with pytest.raises(DataError, match=r"expected degrees for each picture, found none for 0\.png"):
        read_shapes(str(tmp_path))
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "depth" / "3.png")
    with pytest.raises(DataError, match=r"3\.png: expected a gray 16-bit PNG of 16 pixels a side, found L of"):
        read_shapes(str(tmp_path))


def test_a_saved_generator_loads_and_wrong_input_is_named(tmp_path: Path, heads: DepthPictures) -> None:
    model = VolumeGenerator.new(VolumeConfig(side=8, codes=4, channels=8, samples=4), seed=0)
    model.save(tmp_path / "heads")
    loaded = photopic.load(str(tmp_path / "heads"))
    codes = model.draw(2, seed=1)
    assert torch.equal(loaded.render(codes, torch.zeros(2)).depth, model.render(codes, torch.zeros(2)).depth)
    with pytest.raises(DataError, match=r"codes: expected 4 numbers each, found \(3,\)"):
        model.render(torch.zeros(1, 3), torch.zeros(1))
    (tmp_path / "heads" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="heads: is no whole 3D-aware generator"):
        photopic.load(str(tmp_path / "heads"))
    with pytest.raises(DataError, match=r"expected depths of 2.25 to 3.3, found 0 to 0"):
        DepthPictures(heads.images, torch.zeros_like(heads.depth), heads.camera)
    with pytest.raises(DataError, match="fit: expected pictures of known angles"):
        GeometryLearner(replace(heads, yaw=None), TINY)
    with pytest.raises(DataError, match="expected rendered-shapes, rendered-shapes:1000"):
        read_shapes("rendered-shapes:none")
