"""Reading a text-to-image pipeline of diffusers: a local folder or an id on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from photopic.core.errors import ModelError
from photopic.models.files import BUNDLED, GGUF, INDEX, bundled_names, first_line, no_progress_bars, quiet
from photopic.models.text_to_image.call_defaults import read_call_defaults
from photopic.models.text_to_image.families import FAMILIES, made_by, not_taken

_WEIGHTS = re.compile(r"(?:model|diffusion_pytorch_model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")

# the first blocks of transformers, in diffusers' names or the original ones, as ComfyUI has them too
_OF_TRANSFORMERS = re.compile(
    r"(?:model\.diffusion_model\.|diffusion_model\.)?"
    r"(?:double_blocks|joint_blocks|transformer_blocks|single_transformer_blocks|layers|blocks)\.0\."
)


def read(name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> Any:
    """Read a pipeline.

    Args:
        name: What was asked for, for messages.
        source: The folder, a checkpoint in one file, a transformer in one, quantised or not, or the id on the hub.
        device: Where to put it.
        dtype: Number format of the weights; None is float32.

    Raises:
        ModelError: If the pipeline is incomplete or of another kind, or there is no such device.
    """
    if isinstance(source, Path) and source.is_file():
        read_file = _read_with_folder if _is_transformer(source) else _read_single_file
        pipeline = read_file(source, dtype or torch.float32)
    else:
        pipeline = _read_difference(source, dtype) or _read_conditional(name, source, dtype)
        pipeline = pipeline or _read_folder(name, source, dtype or torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that does not exist
        raise ModelError(f"device {device}: cannot be used ({first_line(error)}); leave it out, or use cpu") from error
    return pipeline


def _read_difference(source: Path | str, dtype: torch.dtype | None) -> Any:
    """A bundled inpainting model, which holds only the weights that differ from another's; None for any other model."""
    path = source / "unet" / "inpainting.safetensors" if isinstance(source, Path) else Path()
    if not path.is_file():
        return None
    from photopic.models.text_to_image.inpainting_pipeline import with_difference  # diffusers with it

    with safe_open(path, "pt") as file:
        base = (file.metadata() or {}).get("base", "")
    return with_difference(_read_folder(base, BUNDLED / base, dtype or torch.float32), path)


def _read_conditional(name: str, source: Path | str, dtype: torch.dtype | None) -> Any:
    """A pipeline with the adapter that lies beside it, or beside a bundled one; None for any other model."""
    if not isinstance(source, Path) or not (source / "conditions.json").is_file():
        return None
    from photopic.models.text_to_image.condition_files import read_about, read_encoder

    about, _ = read_about(source)
    if about.base and about.base not in bundled_names():
        raise ModelError(f"{source}: stands beside {about.base!r}, which is no bundled model; copy the whole model")
    pipeline = _read_folder(about.base or name, BUNDLED / about.base if about.base else source, dtype or torch.float32)
    pipeline.conditions = (read_encoder(source), about)
    return pipeline


def _read_folder(name: str, source: Path | str, dtype: torch.dtype, **parts: Any) -> Any:
    variant = None
    if isinstance(source, Path):
        parts = dict.fromkeys(_check_folder(name, source)) | parts
        variant = _variant(source)
    with quiet():
        from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: F401
    try:
        with no_progress_bars():
            how = {"dtype": dtype, "use_safetensors": True, "variant": variant}
            pipeline = DiffusionPipeline.from_pretrained(str(source), **how, **parts)
    except Exception as error:  # diffusers, transformers, safetensors and the hub each raise their own kinds
        raise ModelError(f"{name}: cannot be loaded as a diffusers pipeline: {first_line(error)}") from error
    if isinstance(source, Path):
        pipeline.call_defaults = read_call_defaults(source, pipeline)
    return pipeline


def _read_single_file(path: Path, dtype: torch.dtype) -> Any:
    """A checkpoint in the original layout, converted by diffusers; sizes and tokenizers come from a folder beside it."""
    keys = _keys(path)
    if not any(key.startswith("model.diffusion_model.") for key in keys):
        raise ModelError(
            f"{path}: expected a whole checkpoint (model.diffusion_model...), found {keys[0] if keys else 'none'}"
        )
    beside = _beside(path)
    with quiet():
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    is_xl = any(key.startswith("conditioner.embedders.1.") for key in keys)  # a second text encoder
    kind = StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline
    config = str(beside) if beside else None
    try:
        with no_progress_bars():
            return kind.from_single_file(str(path), config=config, torch_dtype=dtype, local_files_only=True)
    except Exception as error:  # diffusers and the hub each raise their own kinds
        raise ModelError(
            f"{path}: a checkpoint in one file needs the configuration of its pipeline, which is not on this machine; put the "
            f"configuration files of that pipeline into {path.with_suffix('')}/, or convert the file with diffusers' "
            f"from_single_file(...).save_pretrained(folder) ({first_line(error)})"
        ) from error


def _beside(path: Path) -> Path | None:
    """The folder of a pipeline that belongs to a file: of the same name, or the one it lies in."""
    return next((folder for folder in (path.with_suffix(""), path.parent) if (folder / INDEX).is_file()), None)


def _is_transformer(path: Path) -> bool:
    """Whether a file holds a transformer, which everything else has to be found for: by its kind, or by the folder beside it."""
    if path.suffix == GGUF:
        return True
    folder = _beside(path)
    named = json.loads((folder / INDEX).read_text()) if folder is not None else {}
    if "transformer" in named and "unet" not in named:
        return True
    return any(_OF_TRANSFORMERS.match(key) for key in _keys(path))


def _read_with_folder(path: Path, dtype: torch.dtype) -> Any:
    """A pipeline whose transformer is in a file of its own; everything else comes from a folder beside it."""
    folder = _beside(path)
    if folder is None:
        raise ModelError(
            f"{path}: holds a transformer alone; put the other parts of its pipeline, and the transformer's config.json, into "
            f"{path.with_suffix('')}/ as save_pretrained writes them"
        )
    _check_folder(folder.name, folder)
    stated = json.loads((folder / INDEX).read_text()).get("transformer", ["", "none"])[1]
    with quiet():
        import diffusers
    kind: Any = getattr(diffusers, str(stated), None)
    if not hasattr(kind, "from_single_file"):
        raise ModelError(
            f"{path}: diffusers reads no {path.suffix} file for {folder.name}, whose transformer is {stated}; load the folder"
        )
    how: dict[str, Any] = {"config": str(folder), "subfolder": "transformer", "torch_dtype": dtype}
    try:
        with no_progress_bars():
            if path.suffix == GGUF:
                how["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
            transformer = kind.from_single_file(str(path), **how)
    except Exception as error:  # gguf, NumPy and diffusers each raise their own kinds
        raise ModelError(f"{path}: cannot be read as the {stated} of {folder.name}: {first_line(error)}") from error
    return _read_folder(folder.name, folder, dtype, transformer=transformer)


def files_of(source: Path | str, pipeline: Any, parts: Iterable[str]) -> list[Path]:
    """Everything on disk that the weights of some components depend on; none where that is not known."""
    if isinstance(source, Path) and source.is_file():
        folder = _beside(source) if _is_transformer(source) else None
        return (
            [source, *files_of(folder, pipeline, [part for part in parts if part != "transformer"])]
            if folder
            else [source]
        )
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    folder = source if isinstance(source, Path) else Path(network.config._name_or_path).parent  # the hub's cache
    found = [[path for path in (folder / part).rglob("*") if path.is_file()] for part in parts]
    return [folder / INDEX, *chain.from_iterable(found)] if all(found) else []


def _check_folder(name: str, folder: Path) -> list[str]:
    """Refuse what is no whole pipeline; the text encoders that it was saved without, which diffusers must be told."""
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
    kind = str(index.get("_class_name"))
    of_transformers = "transformer" in parts and "unet" not in parts
    if made_by(kind) is not None or (of_transformers and kind not in FAMILIES):  # before gigabytes are read
        raise ModelError(not_taken(name, kind))
    missing = [part for part, origin in parts.items() if origin[0] is not None and not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{folder}: {INDEX} names {', '.join(missing)} but there is no such folder in it; copy the whole model"
        )
    for path in sorted(folder.glob("*/*.safetensors")):
        adapted = next((key for key in _keys(path) if ".base_layer." in key or ".lora_A." in key), None)
        if adapted is not None:
            raise ModelError(
                f"{path}: was saved while an adapter was active (it holds {adapted}); open the pipeline as it was in diffusers, "
                "call unload_lora_weights() or fuse_lora() and unload, and save it again"
            )
    return [
        part for part, origin in parts.items() if origin[0] is None and part.startswith(("text_encoder", "tokenizer"))
    ]


def _variant(folder: Path) -> str | None:
    """The variant to read, such as ``fp16``, where a component has files of that one only."""
    for part in sorted({path.parent for path in folder.glob("*/*.safetensors")}):
        found = {match[1] for path in part.glob("*.safetensors") if (match := _WEIGHTS.fullmatch(path.name))}
        if found and None not in found:
            return "fp16" if "fp16" in found else min(str(each) for each in found)
    return None


def _keys(path: Path) -> list[str]:
    """The names of the tensors in a file, none of which is read."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is no safetensors file ({first_line(error)}); copy the model again") from error
