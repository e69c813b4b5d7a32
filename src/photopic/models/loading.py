"""From a name to a handle: a bundled model, a local diffusers folder, or an id on the hub."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.errors import ModelError

if TYPE_CHECKING:
    import torch

    from photopic.models.text_to_image.handle import TextToImage

BUNDLED = Path(__file__).parent / "bundled"
INDEX = "model_index.json"


def bundled_names() -> tuple[str, ...]:
    """Names of the models that come with photopic."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob(f"*/{INDEX}")))


def load(name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> TextToImage:
    """Load a text-to-image model.

    Args:
        name: A bundled name, else a local folder in the diffusers layout, else a hub id such as ``owner/name``.
        device: Where to put it; None takes the GPU if there is one.
        dtype: Number format of the weights; None is float32.

    Raises:
        ModelError: If there is no such model or device, or the model is incomplete or of another kind.

    Example:
        >>> model = load("emoji-diffusion")  # doctest: +SKIP
    """
    source = _source(str(name))
    with _quiet():
        import torch
        from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: F401

        from photopic.core.fingerprint_cache import LoadedDigest
        from photopic.models.text_to_image.handle import TextToImage

    started = time.time()
    try:
        with _no_progress_bars():
            pipeline: Any = DiffusionPipeline.from_pretrained(
                str(source), dtype=dtype or torch.float32, use_safetensors=True
            )
    except Exception as error:  # diffusers, transformers, safetensors and the hub each raise their own kinds
        raise ModelError(f"{name}: cannot be loaded as a diffusers pipeline: {_first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    bundled = isinstance(source, Path) and source.parent == BUNDLED
    model = TextToImage(pipeline, Path(name).name if isinstance(source, Path) else str(name), knows_emoji=bundled)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        pipeline.to(place)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that does not exist
        raise ModelError(f"device {place}: cannot be used ({_first_line(error)}); leave it out, or use cpu") from error
    model.loaded = LoadedDigest(model.components, _files(source, model), started)
    return model


def _source(name: str) -> Path | str:
    """The folder to read, checked, or the hub id."""
    folder = Path(name).expanduser()
    if name in bundled_names():
        folder = BUNDLED / name
    if folder.is_dir():
        _check_folder(folder)
        return folder
    if folder.is_file():
        raise ModelError(
            f"{name}: is a file, expected a folder in the diffusers layout; convert it with "
            "StableDiffusionPipeline.from_single_file(...).save_pretrained(folder)"
        )
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        bundled = ", ".join(bundled_names()) or "none in this installation"
        raise ModelError(f"{name}: no such model; give a bundled name ({bundled}), a folder, or a hub id owner/name")
    return name


def _files(source: Path | str, model: TextToImage) -> list[Path]:
    """Everything on disk that the model's weights depend on."""
    folder = source if isinstance(source, Path) else Path(model.unet.config._name_or_path).parent  # the hub's cache
    parts = [[path for path in (folder / part).rglob("*") if path.is_file()] for part in model.components]
    return [folder / INDEX, *chain.from_iterable(parts)] if all(parts) else []


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Importing pipelines recommends torchvision, which photopic does without; a checkpoint's warnings come later."""
    import transformers.utils.logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    switches = [part for part in (diffusers_logging, transformers_logging) if part.is_progress_bar_enabled()]
    for part in switches:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in switches:
            part.enable_progress_bar()
