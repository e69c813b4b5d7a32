"""Reading and writing a diffusion model: what ``photopic train diffusion`` wrote, or an unconditional pipeline of diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from photopic.core.errors import ModelError
from photopic.models.diffusion._checks import DIFFUSERS_NAMES
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.pyramid import Pyramid
from photopic.models.diffusion.schedules import Schedule
from photopic.models.files import INDEX, PROCESS, first_line

PREDICTIONS = {theirs: ours for ours, theirs in DIFFUSERS_NAMES.items()}  # by diffusers' names


PROVENANCE = "provenance.json"  # beside the network; models of before have none


class Loaded(NamedTuple):
    """What a folder holds."""

    network: nn.Module
    process: Diffusion
    size: int
    name: str
    provenance: Mapping[str, Any] = {}


def read(name: str, source: Path | str) -> Loaded:
    """Read what ``DiffusionModel.save`` wrote, or an unconditional pipeline of diffusers.

    Args:
        name: What was asked for, for messages.
        source: The folder: with ``process.safetensors``, or the run folder around it; or with ``model_index.json``, ``unet`` and
            ``scheduler``, as DDPMPipeline's.

    Raises:
        ModelError: If the folder lacks a file, one is damaged, or the pipeline is of another kind.
    """
    if not isinstance(source, Path):
        raise ModelError(f"{name}: unconditional pipelines are read from a folder; download it first")
    if (source / INDEX).is_file():
        return _of_pipeline(source)
    folder = source / "model" if (source / "model" / PROCESS).is_file() else source
    for file in ("config.json", PROCESS):
        if not (folder / file).is_file():
            raise ModelError(f"{folder}: is no trained diffusion model: it has no {file}")
    process, size = read_process(folder / PROCESS)
    called = source.parent.name if source.name == "model" else source.name  # of the run
    kept = folder / PROVENANCE
    return Loaded(_network(folder), process, size, called, json.loads(kept.read_text()) if kept.exists() else {})


def _of_pipeline(folder: Path) -> Loaded:
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
        raise ModelError(f"{folder / 'scheduler'}: a {kind} cannot be read: {first_line(error)}") from error
    said = scheduler.config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise ModelError(f"{folder / 'scheduler'}: expected a prediction of {', '.join(PREDICTIONS)}, found {said!r}")
    process = Diffusion(Schedule.of_scheduler(scheduler), PREDICTIONS[said])
    return Loaded(network, process, config.sample_size, folder.name)


def _network(folder: Path) -> nn.Module:
    from diffusers import UNet2DModel

    try:
        return UNet2DModel.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the network cannot be loaded: {first_line(error)}") from error


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
