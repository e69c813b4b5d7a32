"""A trained diffusion model in a folder: a diffusers UNet2DModel and the process it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.runs import write_atomically
from photopic.models.diffusion._checks import DIFFUSERS_NAMES
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.pyramid import Pyramid
from photopic.models.diffusion.schedules import Schedule
from photopic.models.diffusion.solvers import Drawn, draw_events

PROCESS = "process.safetensors"
INDEX = "model_index.json"  # of a diffusers pipeline
PREDICTIONS = {theirs: ours for ours, theirs in DIFFUSERS_NAMES.items()}  # by diffusers' names


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A network and its process.

    Attributes:
        network: Called as ``network(x, t)``; what it gives may be an output with ``sample``.
        process: What it was trained on.
        size: Side of its pictures in pixels.

    Example:
        >>> model = DiffusionModel.load("runs/mine/model")  # doctest: +SKIP
        >>> model.draw([0, 1, 2, 3], solver="dpm++", steps=10).shape  # doctest: +SKIP
        (4, 64, 64, 3)
    """

    network: nn.Module
    process: Diffusion
    size: int

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

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> DiffusionModel:
        """Read what ``save`` wrote, or an unconditional pipeline of diffusers.

        Args:
            folder: With ``process.safetensors``, or the run folder around it; or with ``model_index.json``, ``unet`` and
                ``scheduler``, as DDPMPipeline's.
            device: Where to put the network.

        Raises:
            ModelError: If the folder lacks a file, one is damaged, or the pipeline is of another kind.
        """
        folder = Path(folder)
        if is_unconditional(folder):
            return _of_pipeline(folder, device)
        if cls.is_saved(folder / "model"):
            folder = folder / "model"
        for name in ("config.json", PROCESS):
            if not (folder / name).is_file():
                raise ModelError(f"{folder}: is no trained diffusion model: it has no {name}")
        process, size = read_process(folder / PROCESS)
        return cls(_network(folder).to(device), process, size)


def is_unconditional(folder: Path) -> bool:
    """Whether a folder holds a diffusers pipeline of a ``UNet2DModel``, which reads nothing but pictures and times."""
    try:
        return json.loads((folder / INDEX).read_text())["unet"][1] == "UNet2DModel"
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False


def _of_pipeline(folder: Path, device: str | torch.device) -> DiffusionModel:
    import diffusers

    index = json.loads((folder / INDEX).read_text())
    network: Any = _network(folder / "unet")
    config = network.config
    if "vqvae" in index or config.class_embed_type is not None or config.num_class_embeds is not None:
        raise ModelError(f"{folder}: expected a network of pictures alone, found one of latents or classes")
    if config.in_channels != 3 or not isinstance(config.sample_size, int):
        raise ModelError(
            f"{folder}: expected a network of square RGB pictures, found {config.in_channels} channels and size "
            f"{config.sample_size}"
        )
    kind = index.get("scheduler", [None, None])[1]
    try:
        scheduler = getattr(diffusers, str(kind)).from_pretrained(folder / "scheduler")
    except (AttributeError, OSError, ValueError) as error:
        raise ModelError(f"{folder / 'scheduler'}: a {kind} cannot be read: {_first_line(error)}") from error
    said = scheduler.config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise ModelError(f"{folder / 'scheduler'}: expected a prediction of {', '.join(PREDICTIONS)}, found {said!r}")
    process = Diffusion(Schedule.of_scheduler(scheduler), PREDICTIONS[said])
    return DiffusionModel(network.to(device), process, config.sample_size)


def _network(folder: Path) -> nn.Module:
    from diffusers import UNet2DModel

    try:
        return UNet2DModel.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the network cannot be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
