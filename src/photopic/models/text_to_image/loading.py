"""Reading a text-to-image pipeline of diffusers: a local folder or an id on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from photopic.core.errors import ModelError
from photopic.models.files import INDEX, first_line, no_progress_bars, quiet


def read(name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> Any:
    """Read a pipeline.

    Args:
        name: What was asked for, for messages.
        source: The folder, or the id on the hub.
        device: Where to put it.
        dtype: Number format of the weights; None is float32.

    Raises:
        ModelError: If the pipeline is incomplete or of another kind, or there is no such device.
    """
    if isinstance(source, Path):
        _check_folder(source)
    with quiet():
        from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: F401
    try:
        with no_progress_bars():
            pipeline: Any = DiffusionPipeline.from_pretrained(
                str(source), dtype=dtype or torch.float32, use_safetensors=True
            )
    except Exception as error:  # diffusers, transformers, safetensors and the hub each raise their own kinds
        raise ModelError(f"{name}: cannot be loaded as a diffusers pipeline: {first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that does not exist
        raise ModelError(f"device {device}: cannot be used ({first_line(error)}); leave it out, or use cpu") from error
    return pipeline


def files_of(source: Path | str, pipeline: Any, parts: Iterable[str]) -> list[Path]:
    """Everything on disk that the weights of some components depend on; none where that is not known."""
    folder = source if isinstance(source, Path) else Path(pipeline.unet.config._name_or_path).parent  # the hub's cache
    found = [[path for path in (folder / part).rglob("*") if path.is_file()] for part in parts]
    return [folder / INDEX, *chain.from_iterable(found)] if all(found) else []


def _check_folder(folder: Path) -> None:
    path = folder / INDEX
    if not path.is_file():
        raise ModelError(
            f"{folder}: has no {INDEX}; expected the folder of a whole pipeline, as save_pretrained writes it"
        )
    try:
        index = json.loads(path.read_text())
        parts = {key: value for key, value in index.items() if not key.startswith("_") and isinstance(value, list)}
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: is not a JSON object ({error}); copy the model again") from error
    missing = [part for part, origin in parts.items() if origin[0] is not None and not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{folder}: {INDEX} names {', '.join(missing)} but there is no such folder in it; copy the whole model"
        )
