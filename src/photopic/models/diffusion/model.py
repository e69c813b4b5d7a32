"""A trained diffusion model in a folder: a diffusers UNet2DModel and the process it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from photopic.core.files import finite, share_as_usual, write_atomically
from photopic.data.pixels import to_pixels
from photopic.models.diffusion.loading import PROVENANCE, process_bytes, read
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.solvers import Drawn, draw_events
from photopic.models.files import DIFFUSION, PROCESS, forget_sources
from photopic.models.handle import Handle
from photopic.models.networks import put_on


@dataclass(frozen=True, eq=False)
class DiffusionModel(Handle):
    """A network and its process.

    Attributes:
        network: Called as ``network(x, t)``; what it gives may be an output with ``sample``.
        process: What it was trained on.
        size: Side of its pictures in pixels.
        name: What messages and files call the model.
        provenance: How it was made, as JSON values; empty for a model from elsewhere.

    Example:
        >>> model = DiffusionModel.load("runs/mine")  # doctest: +SKIP
        >>> model.draw([0, 1, 2, 3], solver="dpm++", steps=10).shape  # doctest: +SKIP
        (4, 64, 64, 3)
    """

    described: ClassVar[str] = DIFFUSION

    network: nn.Module
    process: Diffusion
    size: int
    name: str = "model"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def _read(
        cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None
    ) -> DiffusionModel:
        found = read(name, source)
        put_on(found.network, device)
        # past diffusers' own, which prints a line on every cast
        return cls(nn.Module.to(found.network, dtype=dtype), found.process, found.size, found.name, found.provenance)

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it."""
        return {"network": self.network}

    def forward(self, noisy: Float[Tensor, "n c h w"], time: Tensor) -> Float[Tensor, "n c h w"]:
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
        share_as_usual(*folder.glob("*.safetensors"))
        forget_sources(folder)
        if self.provenance:
            write_atomically(
                folder / PROVENANCE, json.dumps(finite(self.provenance), indent=1, sort_keys=True).encode()
            )
        write_atomically(folder / PROCESS, process_bytes(self.process, self.size))

    @staticmethod
    def is_saved(folder: str | Path) -> bool:
        """Whether ``save`` wrote there, to the end."""
        return (Path(folder) / PROCESS).is_file()
