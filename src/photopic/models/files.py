"""What a name stands for and what kind of model lies there, told from its files without reading a weight."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from photopic.core.errors import ModelError
from photopic.core.files import what_is_there, write_atomically

BUNDLED = Path(__file__).parent / "bundled"
INDEX = "model_index.json"  # of a diffusers pipeline
PROCESS = "process.safetensors"  # of a diffusion model trained here
SINGLE_FILE = ".safetensors"  # how the name of a whole pipeline in one file ends
GGUF = ".gguf"  # and of a quantised transformer, beside the rest of its pipeline
TEXT_TO_IMAGE, DIFFUSION = "a text-to-image pipeline", "a diffusion model"
DUAL_ENCODER, CLASSIFIER, CAPTIONER = "a dual encoder", "a classifier", "a captioner"
MASKED_AUTOENCODER = "a masked autoencoder"
SEGMENTER = "a segmentation model"
GENERATOR, GENERATOR_CONFIG = "a generator", "generator.json"  # style-based; beside its weights
STYLE_KEYS = (
    "synthesis.b4.const",
    "to_rgb1.conv.weight",
)  # how those of StyleGAN2 are known: NVIDIA's and rosinality's names
VOLUME_GENERATOR, VOLUME_INDEX = "a 3D-aware generator", "volume_generator.json"
SKELETON_NETWORK, SKELETON_TYPE = "a skeleton network", "skeleton-unet"  # and the model type of its configuration
SEGMENTS = "ForSemanticSegmentation"  # how classes end whose models name the class of every pixel
DUAL_ENCODERS = ("clip", "siglip", "vision-text-dual-encoder", "align", "altclip", "chinese_clip")  # model types
WRITERS = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq")  # how classes end whose models write text


SOURCES = ("_name_or_path", "is_local", "local_files_only")  # keys of configurations: where parts were read from
MARKS = (INDEX, "config.json", GENERATOR_CONFIG)  # a bundled folder has one of these


def forget_sources(folder: Path) -> None:
    """Take out of a saved folder's configurations where its parts were read from, which is no part of a model."""
    for path in (*folder.rglob("*config.json"), *folder.glob(INDEX)):
        stated = json.loads(path.read_text())
        kept = {key: value for key, value in stated.items() if key not in SOURCES}
        if kept != stated:
            write_atomically(path, (json.dumps(kept, indent=2, sort_keys=True) + "\n").encode())


def bundled_names() -> tuple[str, ...]:
    """Names of the models that come with photopic."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob("*/*.json") if path.name in MARKS))


def found_source(name: str) -> Path | str:
    """The folder or single file a name stands for, or the hub id.

    Raises:
        ModelError: If it is neither.
    """
    folder = BUNDLED / name if name in bundled_names() else Path(name).expanduser()
    found = what_is_there(folder)
    if found == "a folder" or (not found and folder.suffix in (SINGLE_FILE, GGUF)):
        return folder
    if found != "nothing":
        raise ModelError(
            f"{name}: is {found or 'a file'}, expected a folder as save_pretrained writes it, a checkpoint in one "
            f"{SINGLE_FILE} file, or a transformer in a {SINGLE_FILE} or {GGUF} file"
        )
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        bundled = ", ".join(bundled_names()) or "none in this installation"
        raise ModelError(f"{name}: no such model; give a bundled name ({bundled}), a folder, or a hub id owner/name")
    return name


def kind_of(source: Path | str) -> str:
    """Which kind of model a folder or hub id holds, by the files in it, without loading any weight.

    Returns:
        What messages call it, such as ``a classifier``.

    Raises:
        ModelError: If it holds none.

    Example:
        >>> kind_of(BUNDLED / "emoji-clip-vit")
        'a dual encoder'
    """
    if isinstance(source, Path) and ((source / GENERATOR_CONFIG).is_file() or style_file(source)):
        return GENERATOR
    if isinstance(source, Path) and source.is_file():
        return TEXT_TO_IMAGE  # a whole pipeline in the original layout; its reader says if it is none
    index = read_json(source, INDEX)
    if index is not None:
        unet = index.get("unet")
        unconditional = isinstance(unet, list) and unet[1:] == ["UNet2DModel"]
        return DIFFUSION if unconditional else TEXT_TO_IMAGE
    if isinstance(source, Path) and any((folder / PROCESS).is_file() for folder in (source, source / "model")):
        return DIFFUSION
    if isinstance(source, Path) and (source / VOLUME_INDEX).is_file():
        return VOLUME_GENERATOR
    config = read_json(source, "config.json")
    if config is None:
        where = "holds no model" if isinstance(source, Path) else "cannot be loaded from the hub"
        raise ModelError(
            f"{source}: {where}: it has no {INDEX}, as a diffusers pipeline, and no config.json, as a model of transformers; "
            "check the name, and the connection where it is on the hub"
        )
    if config.get("model_type") in DUAL_ENCODERS:
        return DUAL_ENCODER
    if config.get("model_type") == "vit_mae":
        return MASKED_AUTOENCODER
    if config.get("model_type") == SKELETON_TYPE:
        return SKELETON_NETWORK
    if any(str(name).endswith(SEGMENTS) for name in config.get("architectures") or ()):
        return SEGMENTER
    return CAPTIONER if _writes_of_pictures(config) else CLASSIFIER


def style_file(source: Path) -> Path | None:
    """The file of a StyleGAN2 state dict: the source itself, or the only weights of a folder without a configuration; else None."""
    files = [source] if source.is_file() else sorted(source.glob(f"*{SINGLE_FILE}"))
    if len(files) != 1 or any((source / mark).exists() for mark in MARKS):
        return None
    try:
        with files[0].open("rb") as file:
            header = file.read(min(int.from_bytes(file.read(8), "little"), 1 << 24))
    except OSError:
        return None
    return files[0] if any(f'{key}"'.encode() in header for key in STYLE_KEYS) else None


def _writes_of_pictures(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model that reads pictures and writes text; a language model alone reads none."""
    classes = [name for name in config.get("architectures") or () if isinstance(name, str)]
    two_towers = config.get("model_type") == "vision-encoder-decoder"
    return two_towers or ("vision_config" in config and any(name.endswith(WRITERS) for name in classes))


def read_json(source: Path | str, name: str) -> dict[str, Any] | None:
    """A JSON object among the files of a model, None where there is no such file.

    Raises:
        ModelError: If the file is no JSON object.
    """
    path = source / name if isinstance(source, Path) else _downloaded(source, name)
    if path is None or not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: is not a JSON object ({first_line(error)}); copy the model again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: is not a JSON object; copy the model again")
    return found


def _downloaded(name: str, file: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file))
    except (RemoteEntryNotFoundError, LocalEntryNotFoundError):  # the repository has no such file, or is not kept here
        return None
    except Exception as error:  # the hub raises its own kinds
        raise ModelError(f"{name}: cannot be loaded from the hub: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error, or its type where it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Importing pipelines recommends torchvision, which photopic does without; a checkpoint's warnings come later."""
    import transformers.utils.logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without the bars that diffusers and transformers show while they load."""
    # who is about to load has imported its library; to import the other for this would take seconds
    there = [sys.modules.get(f"{library}.utils.logging") for library in ("diffusers", "transformers")]
    switches = [part for part in there if part is not None and part.is_progress_bar_enabled()]
    for part in switches:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in switches:
            part.enable_progress_bar()
