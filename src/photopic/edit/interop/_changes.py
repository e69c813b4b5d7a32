"""What an edit changes in the weights of its base, as dense differences, and the checks that come before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from photopic.core.edits import Edit, Part, TokenEmbedding
from photopic.core.errors import EditError
from photopic.core.files import what_is_there, write_atomically
from photopic.core.fingerprint import named_tensors
from photopic.core.identity import difference
from photopic.models.text_to_image.handle import TextToImage


def base_tensors(edit: Edit, model: TextToImage, *, transformers: bool = False) -> dict[str, Tensor]:
    """The tensors of the model an edit was made for.

    Args:
        edit: What will be exported.
        model: Its base, with nothing applied.
        transformers: Whether one with a transformer may be written.

    Raises:
        EditError: If edits are applied to the model, or it is another one than the edit was made for.
    """
    check_bare(model, transformers=transformers)
    tensors = named_tensors(model.components)
    found = model.edits.fingerprint(*(name for name in edit.base.sketches if name in tensors))
    reason = difference(edit.base, found)
    if reason:
        raise EditError(
            f"made for base {edit.base.name} ({edit.base.digest[:12]}), "
            f"but this model is {model.name} ({found.digest[:12]}): {reason}; export it with its own base"
        )
    return tensors


def check_bare(model: TextToImage, *, transformers: bool = False) -> None:
    """Refuse a model with edits applied: differences are taken to its base; and one whose names other libraries write otherwise.

    Args:
        model: Which.
        transformers: Whether the files in question know the layers of transformers.

    Raises:
        EditError: Names the edits.
        ModelError: If the model has a transformer, and they do not.
    """
    if not transformers:
        model.check_unet("such files are read and written for UNet pipelines alone")
    applied = tuple(model.edits.names())
    if applied:
        raise EditError(f"{model.name}: expected no edits applied, found {', '.join(applied)}; take them away first")


def parts_by_weight(edit: Edit) -> dict[str, list[Part]]:
    """The parts that change weights, by the names of those."""
    found: dict[str, list[Part]] = {}
    for part in edit.weight_parts:
        for name in part.names():
            found.setdefault(name, []).append(part)
    return dict(sorted(found.items()))


def change(name: str, parts: Iterable[Part], base: Tensor) -> Tensor:
    """New weight minus base weight in float32, on the CPU, in the shape of the weight."""
    before = base.detach().cpu().float().reshape(-1)  # (entries,)
    changed = torch.zeros_like(before)
    for part in parts:
        write = part.change(name)
        where = slice(None) if write.indices is None else write.indices  # all entries, or flat positions
        values = write.values() if callable(write.values) else write.values
        if write.adds and values is not None:
            changed[where] += values.float().cpu()
        else:
            # a value set, None for zero
            changed[where] = (0.0 if values is None else values.float().cpu()) - before[where]
    return changed.view(base.shape)


def left_out_parts(edit: Edit) -> list[str]:
    """The parts that are no change of weights, in words."""
    others = [part for part in edit.parts if not part.names()]
    return [f"token {part.token}" if isinstance(part, TokenEmbedding) else part.kind for part in others]


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        EditError: If the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({name: each.contiguous() for name, each in sorted(tensors.items())}, metadata))
    except OSError as error:
        raise EditError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file, one at a time.

    Raises:
        EditError: If it cannot be read, or is another kind of file; files that need pickle are never opened.
    """
    with opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            yield name, file.get_tensor(name)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped into memory; what is wrong with it in one line."""
    if found := what_is_there(path):
        raise EditError(f"{path}: expected a safetensors file, found {found}; check the path")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except OSError as error:
        raise EditError(f"{path}: cannot be read ({error.strerror or 'no such file'})") from error
    except SafetensorError as error:
        raise EditError(f"{path.name}: expected a safetensors file, found something else ({error})") from error


def read_keys(path: Path) -> list[str]:
    """The names of the tensors of a safetensors file, none of which is read.

    Raises:
        EditError: As `read_tensors`.
    """
    with opened(path) as file:
        return list(file.keys())


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file that `read_tensors` can read."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}
