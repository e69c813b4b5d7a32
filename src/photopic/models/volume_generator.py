"""A small 3D-aware generator: a code becomes a grid of colour and density, which is rendered from any side.

Use it as ``photopic.load("heads").render(codes, yaw)``: pictures with the depth that the generator itself means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from annotated_types import Ge
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DataError, ModelError
from photopic.core.files import finite, write_atomically
from photopic.core.numerics.pinhole import Camera
from photopic.models.files import VOLUME_GENERATOR, VOLUME_INDEX, read_json
from photopic.models.handle import Handle
from photopic.models.networks import check_finite, put_on

WEIGHTS = "model.safetensors"
HALF = 0.5  # half the side of the grid, in the units of the camera
BACKGROUND = 1.0  # of pictures, white


@dataclass(frozen=True, kw_only=True)
class VolumeConfig(Config):
    """The sizes of the networks."""

    side: Annotated[int, Ge(8)] = 32  # side of the pictures in pixels
    codes: Annotated[int, Ge(1)] = 64  # numbers of a code
    channels: Annotated[int, Ge(4)] = 64  # channels of the coarsest layer; the finest has half of them
    samples: Annotated[int, Ge(2)] = 16  # points of a ray, evenly between the near and the far plane


class Rendered(NamedTuple):
    """What is seen of volumes.

    Attributes:
        pictures: In -1 to 1, over white.
        depth: Mean z along each ray; where nothing is met, the far plane.
        alpha: How opaque each pixel is, 0 to 1.
    """

    pictures: Float[Tensor, "n 3 side side"]
    depth: Float[Tensor, "n side side"]
    alpha: Float[Tensor, "n side side"]


class VolumeNetwork(nn.Module):
    """From codes to grids: two-dimensional layers seen from the front, the last of which tells all depths of a column at once.

    The code scales and shifts the channels of every layer. A grid has as many cells a side as the pictures have pixels.
    """

    def __init__(self, config: VolumeConfig):
        super().__init__()
        self.levels = (config.side // 4).bit_length()  # 4, 8, ..., side
        widths = [
            max(16, config.channels * (4 if level < 2 else 3 if level == 2 else 2) // 4) for level in range(self.levels)
        ]
        self.mapping = nn.Sequential(
            nn.Linear(config.codes, config.codes), nn.LeakyReLU(0.2), nn.Linear(config.codes, config.codes), nn.LeakyReLU(0.2)
        )  # fmt: skip
        self.start = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        pairs = list(zip([widths[0], *widths[:-1]], widths, strict=True))
        self.convolutions = nn.ModuleList(nn.Conv2d(one, other, 3, padding=1) for one, other in pairs)
        self.styles = nn.ModuleList(nn.Linear(config.codes, 2 * other) for _, other in pairs)
        self.last = nn.Conv2d(widths[-1], 4 * config.side, 1)

    def forward(self, codes: Float[Tensor, "n codes"]) -> Float[Tensor, "n 4 d h w"]:
        """Colours and density before their last functions."""
        style = self.mapping(F.normalize(codes, dim=1) * codes.shape[1] ** 0.5)
        found = self.start.expand(len(codes), -1, -1, -1)
        for level, (convolution, scale) in enumerate(zip(self.convolutions, self.styles, strict=True)):
            if level:
                found = F.interpolate(found, scale_factor=2, mode="bilinear", align_corners=False)
            gain, shift = scale(style)[:, :, None, None].chunk(2, 1)
            found = F.leaky_relu(F.instance_norm(convolution(found)) * (1 + gain) + shift, 0.2)
        return self.last(found).unflatten(1, (4, -1))  # (n, 4 d, h, w) -> (n, 4, d, h, w)


def composited(
    density: Float[Tensor, "*rays samples"], depths: Float[Tensor, " samples"]
) -> Float[Tensor, "*rays samples"]:
    """How much each point of a ray counts: its opacity times what the points before it let through.

    Args:
        density: At the points, 0 or more.
        depths: Of the points, evenly spaced.

    Returns:
        Weights that add up to 1 at most.

    Example:
        >>> composited(torch.tensor([0.0, 1e9, 5.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0., 1., 0.])
    """
    through = -density * (depths[1] - depths[0])
    before = torch.cumsum(through, -1) - through  # of the points in front
    return before.exp() * (1 - through.exp())


@dataclass(frozen=True, eq=False)
class VolumeGenerator(Handle):
    """A generator whose pictures have a shape.

    Attributes:
        network: From codes to grids.
        config: Its sizes.
        name: What messages and files call the model.
        provenance: How it was made, as JSON values.

    Raises:
        ModelError: If a weight is not finite.

    Example:
        >>> model = VolumeGenerator.new(VolumeConfig(side=8, channels=8, samples=4), seed=0)
        >>> model.render(model.draw(2, seed=1), torch.zeros(2)).depth.shape
        torch.Size([2, 8, 8])
    """

    described: ClassVar[str] = VOLUME_GENERATOR

    network: VolumeNetwork
    config: VolumeConfig
    name: str = "model"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite(self.network, self.name)
        self.network.eval().requires_grad_(False)

    @classmethod
    def new(cls, config: VolumeConfig, *, seed: int) -> VolumeGenerator:
        """Untrained, with the weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(VolumeNetwork(config), config)

    @classmethod
    def _read(
        cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None
    ) -> VolumeGenerator:
        stated = read_json(source, VOLUME_INDEX) or {}
        try:
            config = VolumeConfig(**stated["config"])
            network = VolumeNetwork(config)
            network.load_state_dict(load_file(Path(source) / WEIGHTS))
        except (KeyError, TypeError, DataError, OSError, RuntimeError, SafetensorError) as error:
            line = str(error).strip().splitlines()[0]
            raise ModelError(f"{name}: is no whole 3D-aware generator ({line}); copy the whole folder") from error
        put_on(network, device)
        return cls(network.to(dtype=dtype), config, Path(source).name, stated.get("provenance", {}))

    def save(self, folder: Path) -> None:
        """Write a folder that ``photopic.load`` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        stated = {"config": asdict(self.config), "provenance": dict(self.provenance)}
        write_atomically(
            folder / WEIGHTS, save({key: each.contiguous() for key, each in self.network.state_dict().items()})
        )
        write_atomically(folder / VOLUME_INDEX, (json.dumps(finite(stated), indent=1) + "\n").encode())

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it."""
        return {"network": self.network}

    @property
    def camera(self) -> Camera:
        """That pictures are rendered with."""
        return Camera(self.config.side)

    def draw(self, count: int, *, seed: int) -> Float[Tensor, "count codes"]:
        """Random codes; the same seed draws the same."""
        draw = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.config.codes, generator=draw).to(self.device, self.dtype)

    def forward(self, codes: Float[Tensor, "n codes"], yaw: Float[Tensor, " n"]) -> Float[Tensor, "n 3 side side"]:
        """Pictures of codes, turned by ``yaw`` radians; gradients flow where they are wanted."""
        return self.render(codes, yaw).pictures

    def render(self, codes: Float[Tensor, "n codes"], yaw: Float[Tensor, " n"]) -> Rendered:
        """Pictures with their depth.

        Args:
            codes: As ``draw`` gives them.
            yaw: How far each shape is turned about the vertical axis, in radians.

        Raises:
            DataError: If codes are of another width.
        """
        if codes.shape[1:] != (self.config.codes,):
            raise DataError(
                f"codes: expected {self.config.codes} numbers each, found {tuple(codes.shape[1:])}; use draw()"
            )
        return rendered(self.network(codes), yaw, self.camera, self.config.samples)


def rendered(grid: Float[Tensor, "n 4 d h w"], yaw: Float[Tensor, " n"], camera: Camera, samples: int) -> Rendered:
    """Grids seen by a camera: points along each ray are looked up, density outside the grid is none."""
    half = (camera.far - camera.near) / (2 * samples)
    depths = torch.linspace(camera.near + half, camera.far - half, samples, dtype=grid.dtype, device=grid.device)
    rays = camera.rays(grid.dtype).to(grid.device)
    points = (rays[:, :, None] * depths[:, None]).expand(len(grid), -1, -1, -1, -1)  # (n, side, side, samples, 3)
    own = camera.turned(points, -yaw) - points.new_tensor([0.0, 0.0, camera.distance])
    found = F.grid_sample(grid, own / HALF, align_corners=False, padding_mode="border")  # (n, 4, side, side, samples)
    inside = (own.abs() < HALF).all(-1)
    length = rays.norm(dim=-1, keepdim=True)  # of a ray between depths of one apart
    density = F.softplus(found[:, 3] - 2) * 10 * inside * length
    weights = composited(density, depths)
    alpha = weights.sum(-1)
    colours = (weights[:, None] * found[:, :3].tanh()).sum(-1)
    depth = (weights * depths).sum(-1) + (1 - alpha) * camera.far
    return Rendered(colours + (1 - alpha)[:, None] * BACKGROUND, depth, alpha)
