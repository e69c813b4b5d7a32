"""A discriminator that also reads geometry: a 3D-aware generator's own depth has to agree with what is read off its pictures.

While real and fake pictures are told apart as ever, a geometry branch learns to read depth from real pictures. After a warm-up the
normals of the depth that the generator renders are pulled towards those that the frozen branch reads off the rendered picture.

Paper: *Improving 3D-aware Image Synthesis with A Geometry-aware Discriminator* (GeoD, NeurIPS 2022, arXiv:2209.15637), after the
loss in its author's later PoF3D. Changed: the branch is a supervised reader of depth in the place of Unsup3D's inverse renderer;
normals have unit length to 1e-12; the adversarial and the geometry loss share a rendering and a backward pass; the task of novel
views is our design, since only its existence is published. Claims ``gan.geometry.*`` of benchmarks/train/geometry.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DataError, DivergedError, FieldError
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.numerics.pinhole import Camera, normals, warped
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.rendered_shapes import YAW, DepthPictures
from photopic.learning.geometry_branch import GeometryBranch
from photopic.metrics.depth import eroded
from photopic.models.networks import fastest, put_on
from photopic.models.volume_generator import Rendered, VolumeConfig, VolumeGenerator

BETAS = (0.0, 0.99)  # of Adam, for generator and discriminator


@dataclass(frozen=True, kw_only=True)
class GeometryConfig(Config):
    """What to train and how."""

    steps: Annotated[int, Ge(1)] = 1000  # steps in all
    fit: Annotated[int, Ge(0)] = (
        400  # of them first: a code for each of some pictures is fitted, without a discriminator
    )
    fitted: Annotated[int, Ge(1)] = 256  # how many pictures, of known angles
    batch: Annotated[int, Ge(2)] = 16  # pictures a step
    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step of Adam; of fitting it is four times that
    r1: Annotated[float, Ge(0)] = 10.0  # weight of the gradient penalty on real pictures
    ema: Annotated[float, Ge(0), Lt(1)] = 0.99  # share of the averaged weights that a step keeps
    weight: Annotated[float, Ge(0)] = 0.5  # weight of the normals' disagreement at its full; 0 is a plain discriminator
    begin: Annotated[int, Ge(0)] = 0  # pictures the discriminator has seen before geometry counts
    full: Annotated[int, Ge(1)] = 800  # pictures it has seen when geometry counts fully; it rises evenly
    stop: Annotated[int, Ge(1)] = 2_000_000  # pictures it has seen when geometry ceases to count
    branch_until: Annotated[int, Ge(0)] = (
        1600  # pictures it has seen when the branch, which learns from the start, stops learning
    )
    # what the generator is pulled to: what the branch learnt; as controls an untrained branch, readings of other pictures, a plane
    branch: Literal["learnt", "random", "shuffled", "flat"] = "learnt"
    detach_image: bool = False  # pull the depth only: no gradient makes the picture easier to read
    views: Annotated[float, Ge(0)] = (
        0.0  # weight of the third task: a picture warped by its read depth is the one from there
    )
    channels: Annotated[int, Ge(4)] = 64  # channels of the generator's coarsest layer
    codes: Annotated[int, Ge(1)] = 64  # numbers of a code
    samples: Annotated[int, Ge(2)] = 16  # points of a ray
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.begin < self.full <= self.stop:
            raise FieldError(
                "full", f"expected more than begin, {self.begin}, and at most stop, {self.stop}, found {self.full}"
            )

    def strength(self, seen: int) -> float:
        """The weight of geometry once so many pictures were seen.

        Example:
            >>> paper = GeometryConfig(weight=0.1, begin=20_000, full=60_000)
            >>> [round(paper.strength(seen), 3) for seen in (20_000, 40_000, 60_000, 2_000_000)]
            [0.0, 0.05, 0.1, 0.0]
        """
        risen = (seen - self.begin) / (self.full - self.begin)
        return 0.0 if seen >= self.stop else self.weight * min(1.0, max(0.0, risen))


PAPER = GeometryConfig(weight=0.1, fit=0, begin=20_000, full=60_000, branch_until=600_000, steps=200_000, batch=32)


@method(
    paper="arXiv:2209.15637",
    claims="gan.geometry.",
    presets={"paper": PAPER},
    command="train geometry",
    examples=("Example: photopic train geometry rendered-shapes:4000 -o heads",),
    after=("{output}: learnt from {pictures} pictures; photopic.load reads it",),
)
def geometry_discriminator(
    data: DepthPictures, *, config: GeometryConfig = GeometryConfig(), run: Run | None = None
) -> Steps[VolumeGenerator]:
    """Train a 3D-aware generator of pictures whose shapes agree with what can be read off the pictures.

    Args:
        data: Pictures with the depth that the geometry branch learns from.
        config: What to train and how.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The generator with averaged weights.

    Raises:
        DataError: If sizes or depths do not fit the camera.
        DivergedError: If a loss is no finite number.

    Example:
        >>> from photopic.data.rendered_shapes import rendered_shapes
        >>> config = GeometryConfig(steps=1, batch=2, channels=8, samples=4)
        >>> geometry_discriminator(rendered_shapes(4, seed=0, side=8), config=config).camera.side
        8
    """
    learner = GeometryLearner(data, config)
    yield from fit(learner, config.steps, run=run)
    return replace(learner.averaged, provenance={"pictures": len(data.images)})


class GeometryLearner:
    """Generator, discriminator and geometry branch, with what their optimizers remember.

    Args:
        data: To learn from.
        config: How.
    """

    def __init__(self, data: DepthPictures, config: GeometryConfig):
        self.config, self.camera = config, data.camera
        sizes = VolumeConfig(
            side=data.camera.side, codes=config.codes, channels=config.channels, samples=config.samples
        )
        self.model = VolumeGenerator.new(sizes, seed=config.seed)
        self.discriminator = Discriminator(data.camera.side, seed=config.seed + 1)
        self.branch = GeometryBranch(data.camera, seed=config.seed + 2)
        for each in (self.model.network, self.discriminator, self.branch):
            put_on(each, fastest())
        device = self.model.device
        self.averaged = replace(self.model, network=copy.deepcopy(self.model.network))
        self.images, self.depth, self.mask = (each.to(device) for each in (data.images, data.depth, data.mask))
        self.yaw, codes = (
            data.yaw,
            torch.randn(min(config.fitted, len(data.images)), config.codes, generator=seeded(config.seed)),
        )
        if config.fit and data.yaw is None:
            raise DataError(
                f"fit: expected pictures of known angles for {config.fit} steps of fitting, found none; use fit=0"
            )
        self.codes = nn.Embedding.from_pretrained(codes.to(device), freeze=False)
        self.networks: dict[str, nn.Module] = {
            "generator": self.model.network, "discriminator": self.discriminator, "branch": self.branch, "codes": self.codes
        }  # fmt: skip
        for network in self.networks.values():
            network.requires_grad_()
        rates = {"generator": (config.lr, BETAS), "discriminator": (config.lr, BETAS), "branch": (1e-3, (0.9, 0.999))}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rates[name][0], betas=rates[name][1])
            for name, network in self.networks.items()
            if name in rates
        }
        own = [{"params": self.model.network.parameters()}, {"params": self.codes.parameters()}]
        self.optimizers["fit"] = torch.optim.Adam(own, betas=(0.9, 0.99))

    def step(self, step: int) -> Mapping[str, float]:
        """The branch on real pictures; then the generator by fitting, or against the discriminator and the discriminator."""
        config, numbers, seen = self.config, {}, max(0, step - self.config.fit) * self.config.batch
        if config.weight + config.views and config.branch != "random" and seen < config.branch_until:
            index = self._drawn(len(self.images), seeded(config.seed, step, 1))
            loss = self.branch.loss(self.images[index], self.depth[index], self.mask[index])
            numbers["branch"] = self._update("branch", loss, step)
        found = self._fit(step) if step < config.fit else self._adversarial(step, seen)
        with torch.no_grad():
            for mean, now in zip(self.averaged.network.parameters(), self.model.network.parameters(), strict=True):
                mean.lerp_(now, 1 - config.ema)
        return found | numbers

    def _fit(self, step: int) -> dict[str, float]:
        """Latent optimisation (GLO, arXiv:1707.05776): pictures from their own angles, their codes learnt with the generator."""
        assert self.yaw is not None
        config, draw = self.config, seeded(self.config.seed, step, 2)
        index = self._drawn(self.codes.num_embeddings, draw)
        codes = F.normalize(self.codes(index), dim=1) * config.codes**0.5
        codes = codes + 0.2 * torch.randn(codes.shape, generator=draw).to(
            codes.device
        )  # so that codes between are pictures too
        found = self.model.render(codes, self.yaw.to(codes.device)[index]).pictures
        for group, rate in zip(self.optimizers["fit"].param_groups, (4 * config.lr, 0.05), strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / config.fit)
        return {"loss": self._update("fit", (found - self.images[index]).square().mean(), step)}

    def _adversarial(self, step: int, seen: int) -> dict[str, float]:
        config, draw = self.config, seeded(self.config.seed, step, 2)
        index = self._drawn(len(self.images), draw)
        codes = torch.randn(config.batch, config.codes, generator=draw).to(index.device)
        yaw = (YAW * (2 * torch.rand(config.batch, generator=draw) - 1)).to(index.device)
        seen_as, numbers = self.model.render(codes, yaw), {}
        self.discriminator.requires_grad_(False)
        self.branch.requires_grad_(False)  # its weights get no gradient here
        loss = F.softplus(-self.discriminator(seen_as.pictures)).mean()
        if strength := config.strength(seen):
            disagreement = self.disagreement(seen_as)
            loss = loss + strength * disagreement
            numbers["normals"] = disagreement.item()
        if config.views and config.begin <= seen < config.stop:
            loss = loss + config.views * self.view_error(seen_as, codes, yaw)
        numbers["generator"] = self._update("generator", loss, step)
        self.discriminator.requires_grad_()
        self.branch.requires_grad_()

        lazy = step % 8 == 0 and config.r1 > 0  # as StyleGAN2: every eighth step, eight times as strong
        real = self.images[index].requires_grad_(lazy)
        said = self.discriminator(real)
        loss = F.softplus(-said).mean() + F.softplus(self.discriminator(seen_as.pictures.detach())).mean()
        if lazy:
            (slope,) = torch.autograd.grad(said.sum(), real, create_graph=True)
            loss = loss + 8 * config.r1 / 2 * slope.square().sum((1, 2, 3)).mean()
        return {"loss": self._update("discriminator", loss, step)} | numbers

    def _drawn(self, count: int, draw: torch.Generator) -> Int64[Tensor, " batch"]:
        return torch.randint(count, (self.config.batch,), generator=draw).to(self.images.device)

    def disagreement(self, seen: Rendered) -> Float[Tensor, ""]:
        """Of the normals of the generator's depth with those that the branch reads off its pictures, where both see a surface."""
        pictures = seen.pictures.detach() if self.config.detach_image else seen.pictures
        depth, mask = self.branch(pictures)
        if self.config.branch == "shuffled":
            depth, mask = depth.roll(1, 0), mask.roll(1, 0)
        elif self.config.branch == "flat":  # within the learnt outline
            depth = torch.full_like(depth, (self.camera.near + self.camera.far) / 2)
        # an untrained branch finds no outline
        both = (mask > 0) & (seen.alpha > 0.5) if self.config.branch != "random" else seen.alpha > 0.5
        return normal_disagreement(seen.depth, depth, eroded(both), self.camera)

    def view_error(
        self, seen: Rendered, codes: Float[Tensor, "n codes"], yaw: Float[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The third task: a picture, warped by the depths read off it and off a second view, against that view."""
        other = self.model.render(codes, -yaw)
        depths = [self.branch(each.pictures)[0] for each in (seen, other)]
        found, valid = warped(seen.pictures, depths[0], depths[1], -2 * yaw, self.camera)
        valid = valid & (other.alpha > 0.5)
        return torch.where(valid[:, None], (found - other.pictures).abs(), 0.0).sum() / valid.sum().clamp_min(1)

    def _update(self, name: str, loss: Float[Tensor, ""], step: int) -> float:
        if not torch.isfinite(loss):
            raise DivergedError(f"step {step + 1}: the loss of the {name} is {loss.item()}; lower the learning rate")
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """Every network's tensors, the averaged ones, and what the optimizers remember."""
        networks = self.networks | {"averaged": self.averaged.network}
        found = {
            f"{name}.{key}": each for name, network in networks.items() for key, each in network.state_dict().items()
        }
        for name, optimizer in self.optimizers.items():
            found |= optimizer_tensors(optimizer, f"optimizer.{name}.")
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        for name, network in (self.networks | {"averaged": self.averaged.network}).items():
            own = {key.removeprefix(f"{name}."): each for key, each in state.items() if key.startswith(f"{name}.")}
            network.load_state_dict(own)
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state, f"optimizer.{name}.")


def seeded(seed: int, step: int = 0, use: int = 0) -> torch.Generator:
    """For one use in one step, so that what a step draws depends on nothing before it."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step, use)).generate_state(1)[0]))


def normal_disagreement(
    own: Float[Tensor, "n side side"],
    read: Float[Tensor, "n side side"],
    mask: Bool[Tensor, "n side side"],
    camera: Camera,
) -> Float[Tensor, ""]:
    """Absolute differences of the normals of two depths, summed over their three parts, meaned over a mask.

    Example:
        >>> depth, mask = torch.full((1, 8, 8), 2.7), torch.ones(1, 8, 8, dtype=torch.bool)
        >>> normal_disagreement(depth, depth, mask, Camera(8)).item()
        0.0
    """
    apart = (normals(own, camera) - normals(read, camera)).abs().sum(-1)
    return torch.where(mask, apart, 0.0).sum() / mask.sum().clamp_min(1)


class Discriminator(nn.Module):
    """Halves pictures down to 4 x 4; the spread over the batch is a last channel."""

    def __init__(self, side: int, *, seed: int, width: int = 32):
        super().__init__()
        widths = [width, *(min(128, width * (level + 2)) for level in range((side // 8).bit_length()))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, width, 3, padding=1)
            self.halving = nn.ModuleList(nn.Conv2d(one, other, 4, 2, 1) for one, other in pairwise(widths))
            self.last = nn.Sequential(
                nn.Conv2d(widths[-1] + 1, 128, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128 * 16, 1)
            )

    def forward(self, pictures: Float[Tensor, "n 3 side side"]) -> Float[Tensor, " n"]:
        """How real each looks."""
        found = F.leaky_relu(self.first(pictures), 0.2)
        for each in self.halving:
            found = F.leaky_relu(each(found), 0.2)
        spread = (found.var(0, unbiased=False) + 1e-8).sqrt().mean().expand(len(found), 1, *found.shape[2:])
        said: Tensor = self.last(torch.cat([found, spread], 1))[:, 0]
        return said
