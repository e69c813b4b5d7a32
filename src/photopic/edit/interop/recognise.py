"""What a file or folder of another library is, told from its content."""

from __future__ import annotations

from pathlib import Path

from photopic.core.errors import EditError
from photopic.core.files import what_is_there
from photopic.edit.interop._changes import read_keys, read_metadata
from photopic.edit.interop._lora_keys import other_kind, parsed
from photopic.edit.interop.lora_import import adapter_folders

_EMBEDDING = 4  # a textual inversion has no more tensors, and none with the name of a layer


def kind_of_file(path: Path) -> str:
    """``lora``, ``textual-inversion`` or ``checkpoint``; adapters of every kind count as ``lora``, whose reader names the others.

    Raises:
        EditError: If there is no such file or folder, or the file is not of safetensors.
    """
    found = what_is_there(path)
    if found == "a folder":
        return "lora" if adapter_folders(path) else "checkpoint"
    if found:
        raise EditError(
            f"{path}: expected a safetensors file, or a folder of peft or diffusers, found {found}; check the path"
        )
    if "photopic" in read_metadata(path):
        raise EditError(f"{path}: expected a file of another library, found one of photopic; an edit needs no import")
    keys = read_keys(path)
    if any(parsed(key) or other_kind(key) for key in keys):
        return "lora"
    is_short = len(keys) <= _EMBEDDING and not any(key.endswith((".weight", ".bias")) for key in keys)
    return "textual-inversion" if is_short else "checkpoint"
