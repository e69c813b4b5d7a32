"""A cross-attention layer that reads another sentence than its UNet is given: what regional prompts and regional edits share."""

from __future__ import annotations

import copy

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor


def reading(layer: Attention) -> Attention:
    """The layer without what rewrites its attention, whose positions are those of the whole prompt; weights are shared."""
    twin = copy.copy(layer)
    twin._modules = dict(layer._modules)  # the processor may be a module, and is not to change in the layer itself
    twin.processor = AttnProcessor2_0()
    return twin


def with_own_prompt(
    layer: Attention,
    asked: Float[Tensor, "batch cells dim"],
    words: Float[Tensor, "1 tokens text"],
    output: Float[Tensor, "batch cells dim"],
    *,
    doubled: bool,
) -> Float[Tensor, "batch cells dim"]:
    """What a layer puts out that reads other words; the unconditional half of a doubled batch, which has none, stays.

    Args:
        layer: As ``reading`` gives it.
        asked: What the layer is called with.
        words: An encoded sentence.
        output: What the layer puts out for the whole prompt.
        doubled: Whether the first half of the batch is the unconditional one.
    """
    kept = len(output) // 2 if doubled else 0
    rows = asked[kept:]
    own = layer.forward(rows, encoder_hidden_states=words.expand(len(rows), *words.shape[1:]).to(rows))
    return torch.cat([output[:kept], own]) if kept else own
