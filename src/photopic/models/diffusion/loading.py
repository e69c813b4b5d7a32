"""Reading a diffusion model: what ``photopic train diffusion`` wrote, or an unconditional pipeline of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from photopic.core.errors import ModelError
from photopic.models.diffusion._checks import DIFFUSERS_NAMES
from photopic.models.diffusion.model import PROCESS, DiffusionModel, read_process
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.schedules import Schedule
from photopic.models.loading import INDEX, first_line
from photopic.models.networks import put_on

PREDICTIONS = {theirs: ours for ours, theirs in DIFFUSERS_NAMES.items()}  # by diffusers' names


def read(name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> DiffusionModel:
    """Read what ``DiffusionModel.save`` wrote, or an unconditional pipeline of diffusers.

    Args:
        name: What was asked for, for messages.
        source: The folder: with ``process.safetensors``, or the run folder around it; or with ``model_index.json``, ``unet`` and
            ``scheduler``, as DDPMPipeline's.
        device: Where to put the network.
        dtype: Number format of the weights; None is float32.

    Raises:
        ModelError: If the folder lacks a file, one is damaged, or the pipeline is of another kind.
    """
    if not isinstance(source, Path):
        raise ModelError(f"{name}: unconditional pipelines are read from a folder; download it first")
    if (source / INDEX).is_file():
        return _of_pipeline(source, device)
    folder = source / "model" if DiffusionModel.is_saved(source / "model") else source
    for file in ("config.json", PROCESS):
        if not (folder / file).is_file():
            raise ModelError(f"{folder}: is no trained diffusion model: it has no {file}")
    process, size = read_process(folder / PROCESS)
    network = _network(folder)
    put_on(network, device)
    called = source.parent.name if source.name == "model" else source.name  # of the run
    return DiffusionModel(network.to(dtype), process, size, called)


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
        raise ModelError(f"{folder / 'scheduler'}: a {kind} cannot be read: {first_line(error)}") from error
    said = scheduler.config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise ModelError(f"{folder / 'scheduler'}: expected a prediction of {', '.join(PREDICTIONS)}, found {said!r}")
    process = Diffusion(Schedule.of_scheduler(scheduler), PREDICTIONS[said])
    put_on(network, device)
    return DiffusionModel(network, process, config.sample_size, folder.name)


def _network(folder: Path) -> nn.Module:
    from diffusers import UNet2DModel

    try:
        return UNet2DModel.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the network cannot be loaded: {first_line(error)}") from error
