"""The key and value projections of attention layers, in a UNet or for text in a transformer, and sets of positions in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.frozen import frozen_weights

if TYPE_CHECKING:
    from photopic.models.text_to_image.families import Family
    from photopic.models.text_to_image.handle import TextToImage

Layers = Literal["cross", "self", "all"]
_KINDS = {"cross": "attn2", "self": "attn1", "all": "attn[12]"}  # what diffusers calls them in a block


def attention_weights(
    model: TextToImage, layers: Layers = "cross", which: Sequence[str] = ("k", "v")
) -> dict[str, Tensor]:
    """The projection matrices by the names that edits use; the tensors are the model's own, detached.

    Args:
        model: A model with a diffusers UNet, or with a transformer, where they are those that text goes through; in shared ones
            the picture goes through them too (see ``families.py``).
        layers: ``cross``: text attention; ``self``: image attention; ``all``: both. A transformer has ``cross`` alone.
        which: Any of ``k`` and ``v``.

    Raises:
        ModelError: If there are no such weights.

    Example:
        >>> sorted(attention_weights(model))[0]                               # doctest: +SKIP
        'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight'
    """
    family = getattr(model, "family", None)
    if family is not None:
        return _text_weights(model, family, layers, which)
    pattern = re.compile(rf"\.{_KINDS[layers]}\.to_({'|'.join(which)})\.weight$")
    found = {
        f"unet.{name}": parameter.detach()
        for name, parameter in model.components["unet"].named_parameters()
        if pattern.search(name)
    }
    if not found:
        raise ModelError(
            f"{model.name}: expected {layers} attention with to_{' and to_'.join(which)} weights in the UNet, "
            "found none; unfuse projections and unload adapters first"
        )
    return found


def check_plain(model: TextToImage, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold no plain numbers, which nothing can be searched or tuned in.

    Raises:
        ModelError: Names the first.
    """
    for name in frozen_weights(model.components, weights):
        raise ModelError(
            f"{model.name}: {name}: expected plain weights to search, found quantised ones; search the model unquantised, and load "
            "the edit on this one with force"
        )


def attention_rows(model: TextToImage, which: Sequence[str] = ("k", "v")) -> dict[str, range]:
    """For each matrix of ``attention_weights`` that makes more than what is searched, the rows that make it.

    Args:
        model: As there.
        which: As there.

    Returns:
        Rows of fused matrices of transformers; nothing for others, all rows of which are searched.
    """
    found: dict[str, range] = {}
    family = getattr(model, "family", None)
    for keys in family.text_keys if family is not None else ():
        for name, parameter in model.network.named_parameters() if keys.fused else ():
            if fnmatchcase(name, keys.key):
                parts = [keys.rows(tuple(parameter.shape), each) for each in ("k", "v") if each in which]
                found[f"transformer.{name}"] = range(parts[0].start, parts[-1].stop)  # values follow keys
    return found


def _text_weights(model: TextToImage, family: Family, layers: Layers, which: Sequence[str]) -> dict[str, Tensor]:
    """The matrices of a transformer that make keys and values of text, by the table of families."""
    kind = type(model.pipeline).__name__
    if layers != "cross":
        raise ModelError(f"{model.name}: {kind} has text attention alone to search, found layers {layers!r}; use cross")
    asked = {
        pattern
        for keys in family.text_keys
        for pattern in ([keys.key] if keys.fused or "k" in which else []) + ([keys.value] if "v" in which else [])
    }
    parameters = dict(model.network.named_parameters())
    found = {
        f"transformer.{name}": parameter.detach()
        for name, parameter in parameters.items()
        if any(pattern is not None and fnmatchcase(name, pattern) for pattern in asked)
    }
    # fused projections of diffusers stand beside those that are no longer read
    if not found or any(re.search(r"\.to_(added_)?qkv\.", name) for name in parameters):
        raise ModelError(
            f"{model.name}: expected {family.text_keys[0].key} in the transformer of {kind}, found none or fused ones; unfuse "
            "projections and unload adapters first"
        )
    return found


def with_zeros(weights: Mapping[str, Tensor], positions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the named weights with the given flat positions set to zero."""
    changed = {}
    for name, index in positions.items():
        copy = weights[name].clone()
        copy.view(-1)[index.to(copy.device)] = 0  # positions count row by row
        changed[name] = copy
    return changed


def random_positions(
    positions: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    seed: int,
    rows: Mapping[str, range] | None = None,
    *,
    whole_rows: bool = False,
) -> dict[str, Tensor]:
    """A random set of positions with the same number in every tensor: the control of a located set.

    Args:
        positions: The located set.
        weights: The tensors.
        seed: Of the draw.
        rows: Of tensors of which only some rows are searched, those.
        whole_rows: Whether the located set is of whole rows, and so the random one.
    """
    chosen = {}
    for number, name in enumerate(sorted(positions)):
        # a prime apart: tensors draw different sets
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        part = (rows or {}).get(name, range(len(weights[name])))
        columns = weights[name][0].numel()
        together = columns if whole_rows else 1  # entries that are drawn as one
        order = torch.randperm(len(part) * columns // together, generator=generator)
        drawn = order[: len(positions[name]) // together].sort().values  # (entries or rows,)
        entries = (drawn[:, None] * together + torch.arange(together)).flatten()
        chosen[name] = entries + part.start * columns
    return chosen
