"""Weights that hold no plain numbers: quantised by torchao, bitsandbytes or as GGUF, or kept in 8-bit floats between calls.

Nothing writes to them. What they stand for can be read, and an edit stands beside them (``core.edits.branches``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from photopic.core.errors import ModelError

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def frozen_weights(modules: Mapping[str, nn.Module], names: Iterable[str]) -> dict[str, nn.Module]:
    """Those of some weights that hold no plain numbers, each with its linear layer.

    Args:
        modules: Component name to module.
        names: ``<component>.<path>.weight``; others are passed over.

    Raises:
        ModelError: If one is a 4-bit weight of bitsandbytes on a processor.

    Example:
        >>> layer = nn.Linear(2, 2).to(torch.float8_e4m3fn)
        >>> list(frozen_weights({"m": nn.Sequential(layer, nn.Linear(2, 2))}, ["m.0.weight", "m.1.weight"]))
        ['m.0.weight']
    """
    found: dict[str, nn.Module] = {}
    for name in names:
        component, _, path = name.removesuffix(".weight").partition(".")
        layer: Any = modules.get(component)
        for step in path.split(".") if layer is not None and path else ():
            layer = getattr(layer, "_orig_mod", layer)._modules.get(step)  # under what torch.compile puts around it
            if layer is None:
                break
        if isinstance(layer, nn.Linear) and name.endswith(".weight") and _is_frozen(layer._parameters.get("weight")):
            if hasattr(layer.weight, "quant_state") and layer.weight.device.type == "cpu":
                raise ModelError(
                    f"{name}: bitsandbytes packs 4-bit weights anew when a processor first uses them, and rounds them when they "
                    "are read, so that nothing could be taken back exactly; load the model in 8 bits"
                )
            found[name] = layer
    return found


def plain_weight(layer: nn.Module) -> Float[Tensor, "out in"]:
    """What a layer's weight stands for, as float32; a copy."""
    weight: Any = layer.weight
    if _is_of_bitsandbytes(weight):
        return _of_bitsandbytes(layer).detach().float()
    if hasattr(weight, "quant_type"):  # GGUF, of diffusers
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(weight).detach().float()
    return (weight.dequantize() if _is_wrapped(weight) else weight).detach().float()


def _is_frozen(weight: Any) -> bool:
    if weight is None:
        return False
    return _is_wrapped(weight) or hasattr(weight, "quant_type") or _is_of_bitsandbytes(weight) or weight.dtype in FLOAT8


def _is_of_bitsandbytes(weight: Any) -> bool:
    return type(weight).__module__.partition(".")[0] == "bitsandbytes"


def _of_bitsandbytes(layer: Any) -> Tensor:
    functional = import_module("bitsandbytes").functional

    weight = layer.weight
    if hasattr(weight, "quant_state"):  # 4 bits
        return functional.dequantize_4bit(weight.data, weight.quant_state)
    scales = weight.SCB if weight.SCB is not None else layer.state.SCB  # of 8 bits, (out,); the first call moves them
    return functional.int8_vectorwise_dequant(weight.data, scales)


def _is_wrapped(weight: Any) -> bool:
    # every tensor has the method; those that are quantised have one of their own
    own: Any = type(weight)
    return is_traceable_wrapper_subclass(weight) and own.dequantize is not Tensor.dequantize
