"""A trained diffusion model in a folder: a diffusers UNet2DModel and the process it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.runs import write_atomically
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.pyramid import Pyramid
from photopic.models.diffusion.schedules import Schedule
from photopic.models.diffusion.solvers import Drawn, draw_events
from photopic.models.handle import Handle

PROCESS = "process.safetensors"


@dataclass(frozen=True, eq=False)
class DiffusionModel(Handle):
    """A network and its process.

    Attributes:
        network: Called as ``network(x, t)``; what it gives may be an output with ``sample``.
        process: What it was trained on.
        size: Side of its pictures in pixels.
        name: What messages and files call the model.

    Example:
        >>> model = DiffusionModel.load("runs/mine/model")  # doctest: +SKIP
        >>> model.draw([0, 1, 2, 3], solver="dpm++", steps=10).shape  # doctest: +SKIP
        (4, 64, 64, 3)
    """

    described: ClassVar[str] = "a diffusion model"

    network: nn.Module
    process: Diffusion
    size: int
    name: str = "model"

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it."""
        return {"network": self.network}

    def forward(self, noisy: Float[Tensor, "n c h w"], time: Tensor) -> Float[Tensor, "n c h w"]:  # type: ignore[override]
        """The prediction."""
        return self(noisy, time)

    def __call__(self, noisy: Float[Tensor, "n c h w"], time: Tensor) -> Float[Tensor, "n c h w"]:
        """The prediction."""
        found = self.network(noisy, time)
        return found if isinstance(found, Tensor) else found.sample

    def draw_events(self, seeds: Sequence[int], **options: Any) -> Iterator[Drawn]:
        """Draw pictures of seeds step by step, clipped to what pixels can be; further arguments are those of ``solvers``."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        device = next(self.network.parameters()).device
        shape = (3, self.size, self.size)
        settings: dict[str, Any] = {"clip": 1.0, "device": device} | options
        yield from draw_events(self.process, self, shape, generators, **settings)

    def draw(self, seeds: Sequence[int], **options: Any) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures of seeds; a picture does not depend on which others are drawn with it."""
        for event in self.draw_events(seeds, **options):
            state = event.state
        return to_pixels(state)

    def save(self, folder: Path) -> None:
        """Write the network as diffusers does, and the process beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_pretrained(folder)  # type: ignore[operator]
        write_atomically(folder / PROCESS, process_bytes(self.process, self.size))

    @staticmethod
    def is_saved(folder: str | Path) -> bool:
        """Whether ``save`` wrote there, to the end."""
        return (Path(folder) / PROCESS).is_file()


def to_pixels(pictures: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """From -1..1 to 8 bits."""
    scaled = (pictures.float().clamp(-1, 1) * 127.5 + 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_pixels(images: UInt8[np.ndarray, "n h w 3"] | UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """From 8 bits to -1..1."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def process_bytes(process: Diffusion, size: int) -> bytes:
    """A process as the bytes of a safetensors file."""
    tensors = {"alphas": process.schedule.alphas}
    if process.attenuation is not None:
        tensors["attenuation"] = process.attenuation
    if process.time_map is not None:
        tensors["time_map"] = process.time_map
    about = {
        "size": size,
        "prediction": process.prediction,
        "levels": process.pyramid.levels,
        "kind": process.pyramid.kind,
        "turning": list(process.turning),
        "inserted": None if process.inserted is None else list(process.inserted),
    }
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(whole, metadata={"photopic": json.dumps(about, sort_keys=True)})


def read_process(path: Path) -> tuple[Diffusion, int]:
    """A process and the side of its pictures.

    Raises:
        ModelError: If the file is damaged or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            about = json.loads(file.metadata()["photopic"])
        inserted = about["inserted"]
        process = Diffusion(
            Schedule(tensors["alphas"]),
            about["prediction"],
            Pyramid(about["levels"], about["kind"]),
            tuple(about["turning"]),
            tensors.get("attenuation"),
            tensors.get("time_map"),
            None if inserted is None else tuple(inserted),
        )
        return process, int(about["size"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: is damaged or no diffusion process: {error}; train again or copy it again"
        ) from error
