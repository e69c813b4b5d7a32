"""Layers that peft trained in full beside its factors (``modules_to_save``), as differences from the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from photopic.core.errors import EditError
from photopic.edit.interop._lora_keys import Names, parsed

ROLES = {"weight": "diff", "bias": "diff_b"}


def as_differences(
    file: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], names: Names, known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of a file with each that is a whole trained weight or bias replaced by its difference from the base.

    Args:
        file: What messages call the file.
        tensors: By the file's keys, in which such a weight has the layer's plain name.
        settings: Of peft; ``modules_to_save`` names the layers, of all components or of one whose name stands before it.
        names: The model's weights by every name.
        known: The base's tensors.

    Raises:
        EditError: If a shape is another than the base's.
    """
    saved = {str(name) for key, value in settings.items() if key.endswith("modules_to_save") for name in value or ()}
    found = dict(tensors)
    for key, tensor in tensors.items() if saved else ():
        stem, _, end = key.rpartition(".")
        if end not in ROLES or parsed(key) is not None or not any(f".{name}." in f".{stem}." for name in saved):
            continue
        target = [f"{name.removesuffix('.weight')}.{end}" for name in names.find(stem)]
        if len(target) != 1 or target[0] not in known:
            continue  # named as unknown with all others
        base = known[target[0]]
        if tensor.shape != base.shape:
            raise EditError(f"{file}: {key}: expected shape {tuple(base.shape)}, found {tuple(tensor.shape)}")
        del found[key]
        found[f"{stem}.{ROLES[end]}"] = tensor.float() - base.float().to(tensor.device)
    return found
