"""What a file or folder of another library is, told from its content."""

from __future__ import annotations

from pathlib import Path

from photopic.core.errors import EditError
from photopic.edit.interop._changes import read_keys

_LORA = (".lora_", "_lora.", ".lora.", ".alpha")  # in the keys of a LoRA, whatever its naming


def kind_of_file(path: Path) -> str:
    """``lora`` or ``checkpoint``.

    Raises:
        EditError: If there is no such file, or it is not of safetensors.
    """
    if path.is_dir():
        return "checkpoint"
    if not path.is_file():
        raise EditError(f"{path}: no such file or folder; name a safetensors file, or a folder of peft or diffusers")
    keys = read_keys(path)
    return "lora" if any(mark in key for key in keys for mark in _LORA) else "checkpoint"
