"""The key and value projections of attention layers, in a UNet or for text in a transformer, and sets of positions in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from photopic.core.errors import ModelError

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


def _text_weights(model: TextToImage, family: Family, layers: Layers, which: Sequence[str]) -> dict[str, Tensor]:
    """The matrices of a transformer that make keys and values of text, by the table of families."""
    kind = type(model.pipeline).__name__
    if layers != "cross":
        raise ModelError(f"{model.name}: {kind} has text attention alone to search, found layers {layers!r}; use cross")
    found: dict[str, Tensor] = {}
    for name, parameter in model.network.named_parameters():
        for keys in family.text_keys:
            asked = [keys.key] * ("k" in which) + [keys.value] * ("v" in which and keys.value is not None)
            if keys.value is None and set(which) != {"k", "v"} and fnmatchcase(name, keys.key):
                raise ModelError(
                    f"{model.name}: {name} makes keys and values in one matrix; search both, found {list(which)}"
                )
            if any(fnmatchcase(name, pattern) for pattern in asked):
                found[f"transformer.{name}"] = parameter.detach()
    if not found:
        raise ModelError(
            f"{model.name}: expected {family.text_keys[0].key} in the transformer of {kind}, found none; unfuse projections and "
            "unload adapters first"
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


def random_positions(positions: Mapping[str, Tensor], weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A random set of positions with the same number in every tensor: the control of a located set."""
    chosen = {}
    for number, name in enumerate(sorted(positions)):
        # a prime apart: tensors draw different sets
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        order = torch.randperm(weights[name].numel(), generator=generator)
        chosen[name] = order[: len(positions[name])].sort().values
    return chosen
