"""LoRA files of diffusers, peft and the kohya scripts as edits."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from photopic.core.edits import Edit, LowRankDelta
from photopic.core.errors import EditError
from photopic.core.results import provenance
from photopic.edit.interop._changes import check_bare, read_metadata, read_tensors
from photopic.edit.interop._names import ADAPTED, kohya_names, layers
from photopic.models.text_to_image.handle import TextToImage

_ENDINGS = {  # how the keys of one layer end, and which factor they hold
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
_OTHER_KINDS = {
    "lora_mid": "a CP-decomposed (LoCon mid) convolution",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    ".diff": "a dense difference",
}
_OLD_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
METADATA_KEY = "lora_adapter_metadata"
_SHOWN = 5


@dataclass
class _Layer:
    """What a file holds for one layer, with the keys it came under."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def import_lora(path: str | Path, model: TextToImage) -> Edit:
    """Read a LoRA file as an edit with one `LowRankDelta` part.

    Reads the namings of diffusers (``unet.….lora_A.weight``, the older ``.lora.down.weight`` and ``to_q_lora.down.weight``, with
    peft's metadata where a file has it) and of the kohya scripts (``lora_unet_….lora_down.weight``, ``lora_te_``, ``lora_te1_``,
    ``lora_te2_``, with diffusers' block names or the original ones), for linear layers and convolutions. A product is scaled by
    alpha / rank of its own layer, and by 1 where the file has no alpha.

    Args:
        path: A safetensors file.
        model: What it was trained for, with no edits applied.

    Returns:
        The edit, bound to the model.

    Raises:
        EditError: If a key is unknown or lacks its other factor, a shape does not fit, or nothing in the file fits the model; for
            DoRA, LoHa, LoKr, OFT and CP-decomposed files by name.

    Example:
        >>> edit = import_lora("style.safetensors", model)  # doctest: +SKIP
        >>> with model.edits.applied(edit):  # doctest: +SKIP
        ...     model.generate("a bear", seeds=[0])
    """
    path = Path(path)
    check_bare(model)
    tensors = dict(read_tensors(path))
    config = _peft_config(path)
    for key in tensors:
        _check_kind(path.name, key)
    known = layers(model)
    found = _gather(path.name, tensors, {name: module.weight for name, module in known.items()}, model)
    up, down, scales = {}, {}, {}
    for name, layer in sorted(found.items()):
        up[name], down[name] = _factors(path.name, layer, name, tuple(known[name].weight.shape))
        scales[name] = _scale(path.name, layer, name, config)
    facts = {"file": path.name, "data": hashlib.sha256(path.read_bytes()).hexdigest()}
    base = model.edits.fingerprint(*up)
    return Edit((LowRankDelta(up, down, scales),), base, provenance("interop.import_lora", **facts))


def _check_kind(file: str, key: str) -> None:
    for mark, kind in _OTHER_KINDS.items():
        if mark in key:
            raise EditError(f"{file}: {key}: expected a plain LoRA, found {kind}, which photopic cannot import")


def _gather(
    file: str, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor], model: TextToImage
) -> dict[str, _Layer]:
    """The factors of each layer by the name of its weight."""
    kohya = kohya_names(model, weights)
    found: dict[str, _Layer] = {}
    unknown = []
    for key, tensor in tensors.items():
        ending = next((ending for ending in _ENDINGS if key.endswith(ending)), None)
        name = _weight_name(key.removesuffix(ending), kohya, weights) if ending else None
        if ending is None or name is None:
            unknown.append(key)
            continue
        layer, role = found.setdefault(name, _Layer()), _ENDINGS[ending]
        if role in layer.tensors:
            raise EditError(f"{file}: {key}: means the same as {layer.keys[role]}; expected one {role} a layer")
        layer.tensors[role], layer.keys[role] = tensor, key
    if not found:
        raise EditError(
            f"{file}: none of its {len(tensors)} tensors fits a layer of {model.name} ({_some(unknown)}); "
            "expected a LoRA for this model"
        )
    if unknown:
        raise EditError(
            f"{file}: {len(unknown)} of its {len(tensors)} tensors fit no layer of {model.name}: {_some(unknown)}; "
            "it is for another model"
        )
    return found


def _some(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "") if keys else "it is empty"


def _weight_name(stem: str, kohya: Mapping[str, str], weights: Mapping[str, Tensor]) -> str | None:
    """The weight that the stem of a key means."""
    if stem in kohya:
        return kohya[stem]
    component, _, layer = stem.removeprefix("base_model.model.").partition(".")
    if component not in ADAPTED:
        return None
    layer = layer.replace(".processor.", ".")
    if component != "unet":
        head, _, last = layer.rpartition(".")
        layer = f"{head}.{_OLD_PROJECTIONS.get(last, last)}"
    plain = layer.removeprefix("text_model.")
    spellings = [layer, f"{layer}.0", plain, f"text_model.{plain}"]  # to_out is to_out.0 since diffusers 0.14
    return next((name for each in spellings if (name := f"{component}.{each}.weight") in weights), None)


def _factors(file: str, layer: _Layer, name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """up as (out, rank) and down as (rank, in x height x width)."""
    for role in ("down", "up"):
        if role not in layer.tensors:
            key = next(layer.keys[each] for each in ("down", "up", "alpha") if each in layer.keys)
            raise EditError(f"{file}: {key}: expected both factors of {name}, found no {role}")
        tensor, key = layer.tensors[role], layer.keys[role]
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise EditError(f"{file}: {key}: expected finite floating-point values, found others")
    down, up = layer.tensors["down"], layer.tensors["up"]
    rank, inner = len(down) if down.ndim else 0, torch.Size(shape[1:]).numel()
    fits = rank and up.ndim >= 2 and up.shape[:2] == (shape[0], rank) and up.numel() == shape[0] * rank
    if not fits or down.numel() != rank * inner or (down.ndim == 4 and tuple(down.shape[1:]) != _as_conv(shape)):
        raise EditError(
            f"{file}: {layer.keys['down']}: expected factors of {name} with shape {shape}, "
            f"found {tuple(up.shape)} and {tuple(down.shape)}"
        )
    dtype = torch.promote_types(up.dtype, down.dtype)
    return up.reshape(shape[0], rank).to(dtype), down.reshape(rank, inner).to(dtype)


def _as_conv(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) == 4 else (shape[1], 1, 1)


def _scale(file: str, layer: _Layer, name: str, config: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for a rank-stabilised LoRA."""
    rank = len(layer.tensors["down"])
    if "alpha" in layer.tensors:
        alpha = layer.tensors["alpha"]
        if alpha.numel() != 1 or not bool(torch.isfinite(alpha).all()):
            raise EditError(
                f"{file}: {layer.keys['alpha']}: expected one finite number, found shape {tuple(alpha.shape)}"
            )
        return float(alpha) / rank
    component, path = name.rsplit(".", 1)[0].split(".", 1)
    alpha_of = {
        key.removeprefix(f"{component}."): each for key, each in config.items() if key.startswith(f"{component}.")
    }
    if "lora_alpha" not in alpha_of:
        return 1.0
    alpha = _of_pattern(alpha_of.get("alpha_pattern") or {}, path, alpha_of["lora_alpha"])
    if not isinstance(alpha, int | float):
        raise EditError(f"{file}: {METADATA_KEY}: {name}: expected a number as alpha, found {alpha!r}")
    return alpha / (math.sqrt(rank) if alpha_of.get("use_rslora") else rank)


def _of_pattern(patterns: Mapping[str, Any], path: str, default: Any) -> Any:
    """As peft reads its patterns: a regular expression for the whole path or for its end."""
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path)), default)


def _peft_config(path: Path) -> dict[str, Any]:
    """The settings diffusers keeps with a LoRA it saved, or none."""
    text = read_metadata(path).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise EditError(f"{path.name}: {METADATA_KEY}: expected JSON, found something else ({error})") from None
    if not isinstance(config, dict):
        raise EditError(f"{path.name}: {METADATA_KEY}: expected an object, found {type(config).__name__}")
    for key, value in config.items():
        if key.endswith("use_dora") and value:
            raise EditError(
                f"{path.name}: {METADATA_KEY}: {key}: expected a plain LoRA, found DoRA, which photopic cannot import"
            )
    return config
