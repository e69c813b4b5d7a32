"""Small generators fitted to the procedural faces by latent optimisation, kept for every benchmark that asks for them.

One z a picture and the weights are learnt together to draw the pictures, by mean squares in which pixels of eyes and mouth, which
are few, count five times (GLO, arXiv:1707.05776); no discriminator. Faces above the 80 % quantile of the face's brightness are
left out of every fit, so that a generator has something to extrapolate to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import getsource
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.harness.benchmark import ROOT
from benchmarks.harness.cache import ResultCache
from photopic.core.files import write_atomically
from photopic.core.numerics.muon import Muon
from photopic.data.gan_worlds import FaceScenes, faces
from photopic.data.overlays import enlarged, labelled
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.data.pixels import to_pixels
from photopic.models.generator import Generator, GeneratorConfig

SIDE, SCENES, HELD = 32, 640, 0.2  # pixels; scenes drawn; share of the brightest faces that is left out
NETWORK = GeneratorConfig(
    resolution=SIDE, channels=(64, 64, 48, 32), z_width=64, w_width=64, noise="none", mapping_rate=1.0
)


@dataclass(frozen=True)
class World:
    """Which faces, and how a generator is fitted to them."""

    correlated: bool = True
    seed: int = 0
    steps: int = 2600
    batch: int = 16
    lr: float = 0.02  # of Muon, for the kernels and matrices
    rest_lr: float = 5e-3  # of Adam, for biases, the constant and the layers to colours
    z_lr: float = 0.03
    detail: float = 5.0  # weight of the pixels of eyes and mouth, which are few


class Fitted(NamedTuple):
    """A generator with the pictures it was fitted to.

    Attributes:
        model: The generator.
        z: A latent for each picture.
        scenes: The pictures and their factors, the brightest faces among them.
        used: Places of those that it was fitted to, in the order of z.
        error: Mean squared error of their pictures.
    """

    model: Generator
    z: Float[Tensor, "n z"]
    scenes: FaceScenes
    used: Tensor
    error: float


def fitted(world: World) -> Fitted:
    """A generator of a world, from the cache that all benchmarks share."""
    cache = ResultCache(ROOT / "runs" / "gan-worlds")
    model = Generator.fresh(replace(NETWORK, seed=world.seed), f"{world}")
    scenes, used = scenes_of(world)
    # what decides a fit is what is drawn before it, by the network and by the world, whatever code around them changes
    drawn = [model.synthesize(model.map(model.sample_z(8))), scenes.pictures[used[:8]]]
    probe = [[round(float(each), 3) for each in pictures.mean((2, 3)).flatten()] for pictures in drawn]
    key = {"world": world, "network": NETWORK, "probe": probe, "fit": getsource(fit)}

    def make() -> np.ndarray:
        z = fit(model, scenes.pictures[used], (scenes.masks["eyes"] | scenes.masks["mouth"])[used], world)
        weights = [each.detach().flatten() for each in model.parameters().values()]
        return torch.cat([z.flatten(), *weights]).numpy()

    found = torch.from_numpy(cache.array(key, make))
    z, rest = found[: len(used) * NETWORK.z_width].reshape(len(used), -1), found[len(used) * NETWORK.z_width :]
    for each in model.parameters().values():
        each.data.copy_(rest[: each.numel()].reshape(each.shape))
        rest = rest[each.numel() :]
    model.__dict__.pop("_w_moments", None)
    return Fitted(model, z, scenes, used, float(errors(model, z, scenes.pictures[used]).mean()))


def scenes_of(world: World) -> tuple[FaceScenes, Tensor]:
    """All scenes of a world, and places of those whose face is not among the brightest."""
    scenes = faces(SCENES, seed=world.seed, correlated=world.correlated, size=SIDE)
    brightness = scenes.factors["face"].mean(1)
    return scenes, (brightness <= brightness.quantile(1 - HELD)).nonzero()[:, 0]


def fit(
    model: Generator, pictures: Float[Tensor, "n 3 h w"], small: Bool[Tensor, "n h w"], world: World
) -> Float[Tensor, "n z"]:
    """Learn the weights and a z for each picture, from whitened principal components on; rates fall along a half cosine."""
    u, _, _ = torch.linalg.svd(pictures.flatten(1) - pictures.flatten(1).mean(0), full_matrices=False)
    z = (u[:, : model.config.z_width] * len(u) ** 0.5).clone().requires_grad_()  # (n, z), unit variance
    learnt = {name: each.requires_grad_() for name, each in model.parameters().items()}
    rest = [each for name, each in learnt.items() if each.ndim < 2 or "constant" in name or "to_rgb" in name]
    kernels = [each for each in learnt.values() if all(each is not other for other in rest)]
    optimizers = [
        Muon(kernels, world.lr),
        torch.optim.Adam([{"params": rest, "lr": world.rest_lr}, {"params": [z], "lr": world.z_lr}], betas=(0.5, 0.99)),
    ]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    first = [group["lr"] for group in groups]
    draw = torch.Generator().manual_seed(world.seed)
    for step in range(world.steps):
        for group, lr in zip(groups, first, strict=True):
            group["lr"] = lr * (0.02 + 0.98 * (1 + math.cos(math.pi * step / world.steps)) / 2)
        places = torch.randint(len(pictures), (world.batch,), generator=draw)
        weights = 1 + (world.detail - 1) * small[places, None]
        loss = ((model.synthesize(model.map(z[places])) - pictures[places]).square() * weights).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if step % 250 == 249:
            print(f"fit {world.seed} step {step + 1}: {loss.item():.4f}", flush=True)
    for each in learnt.values():
        each.requires_grad_(False)
    return z.detach()


@torch.no_grad()
def errors(model: Generator, z: Tensor, pictures: Tensor) -> Float[Tensor, " n"]:
    """Mean squared error of each picture."""
    return torch.cat([
        (model.synthesize(model.map(each)) - wanted).square().mean((1, 2, 3))
        for each, wanted in zip(z.split(64), pictures.split(64), strict=True)
    ])  # fmt: skip


def write_rows(name: str, rows: Sequence[tuple[str, Float[Tensor, "n 3 h w"]]]) -> None:
    """A contact sheet of docs/images: one row of pictures for each label."""
    pictures = [labelled(enlarged(each, 96), label) for label, row in rows for each in to_pixels(row)]
    write_atomically(ROOT / "docs" / "images" / name, png_bytes(contact_sheet(pictures, columns=len(rows[0][1]))))
