"""Rewrite the cross-attention scores of a UNet before the softmax; see `rewrite_attention`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    AttnProcessorNPU,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.attention.layers import Grid, cross_attention, uncompiled

# these compute the same function in different ways, so that another way may stand in for them
PLAIN = (AttnProcessor, AttnProcessor2_0, AttnProcessorNPU, SlicedAttnProcessor, XFormersAttnProcessor)

Watcher: TypeAlias = Callable[[Float[Tensor, "batch heads cells tokens"]], None]


@dataclass(frozen=True)
class Place:
    """Where in the UNet scores are from.

    Attributes:
        name: The layer, such as ``mid_block.attentions.0.transformer_blocks.0.attn2``.
        height: Rows of its grid of latent cells; ``height * width`` is the number of cells.
        width: Columns of the grid; cells are counted row by row.
        heads: Number of attention heads.
    """

    name: str
    height: int
    width: int
    heads: int


Rewrite: TypeAlias = Callable[
    [Float[Tensor, "batch heads cells tokens"], Place], Float[Tensor, "batch heads cells tokens"]
]


@contextmanager
def rewrite_attention(unet: nn.Module, rewrite: Rewrite, *, layers: str = "*") -> Iterator[None]:
    """Let a function rewrite the cross-attention scores of every UNet call inside the ``with`` block.

    Used inside another ``rewrite_attention`` it sees what the outer one returned. ``capture_attention``, inside or
    around it, reports the probabilities that result. Gradients flow through. Compiled modules run uncompiled inside.

    Args:
        unet: A diffusers UNet.
        rewrite: Gets the scores Q K^T / sqrt(head_dim), in float32 and before the attention mask is added, of the whole
            batch (both halves under guidance), and where they are from; returns the scores to use. ``-inf`` at a token
            gives it a probability of exactly 0.
        layers: Name pattern of the layers to touch, such as ``"up_blocks.*"``; the others keep their processor.

    Yields:
        Nothing; layers have their processors back when the block ends, also when it raises.

    Raises:
        ModelError: If no cross-attention layer matches; a layer's processor is not one of diffusers' plain ones (an
            IP-Adapter's, say), whose work a rewrite would drop; or, in a call, the rewrite returns another shape, or
            leaves a cell no token.

    Example:
        >>> def without_bear(scores, place):
        ...     return scores.index_fill(-1, torch.tensor([2]), -torch.inf)
        >>> with rewrite_attention(model.unet, without_bear):  # doctest: +SKIP
        ...     model.generate("a bear on a red background", seeds=[0])
    """
    chosen = cross_attention(unet, layers)
    for name, layer in chosen.items():
        _check_replaceable(name, layer)
    grid = Grid()
    with ExitStack() as stack:
        stack.enter_context(uncompiled(unet))
        stack.enter_context(grid.watching(unet))
        for name, layer in chosen.items():
            stack.enter_context(_installed(layer, _Change(rewrite, name, grid)))
        yield


@dataclass(frozen=True, eq=False)
class _Change:
    """One rewrite of one layer."""

    rewrite: Rewrite
    name: str
    grid: Grid

    def __call__(self, scores: Float[Tensor, "batch heads cells tokens"]) -> Float[Tensor, "batch heads cells tokens"]:
        place = Place(self.name, *self.grid.of(self.name, scores.shape[2]), heads=scores.shape[1])
        changed = self.rewrite(scores, place)
        if not isinstance(changed, Tensor) or changed.shape != scores.shape:
            found = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise ModelError(f"{self.name}: the rewrite must return scores of {tuple(scores.shape)}, found {found}")
        return changed.to(scores.dtype)


class RewritingProcessor:
    """Attention as diffusers computes it, with changes of the scores in the order they were installed.

    Args:
        replaced: The layer's own processor, to be put back.
    """

    def __init__(self, replaced: Any):
        self.replaced = replaced
        self.changes: list[_Change] = []

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        watchers: tuple[Watcher, ...] = (),
    ) -> Tensor:
        """The layer's output; ``watchers`` are handed the probabilities."""
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        image_shape = hidden_states.shape if hidden_states.ndim == 4 else None
        if image_shape is not None:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (batch, c, h, w) -> (batch, cells, c)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross is not None:
            text = attn.norm_encoder_hidden_states(text)
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (batch, n, dim) -> (batch, heads, n, head_dim)
            for projected in (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        )
        probabilities = self._probabilities(attn, query, key, attention_mask)
        for watch in watchers:
            watch(probabilities)
        hidden_states = probabilities.to(value.dtype) @ value  # (batch, heads, cells, head_dim)
        hidden_states = attn.to_out[0](hidden_states.transpose(1, 2).flatten(2).to(query.dtype))
        hidden_states = attn.to_out[1](hidden_states)
        if image_shape is not None:
            hidden_states = hidden_states.transpose(-1, -2).reshape(image_shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        return hidden_states / attn.rescale_output_factor

    def _probabilities(
        self, attn: Attention, query: Tensor, key: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "batch heads cells tokens"]:
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        precision = torch.promote_types(query.dtype, torch.float32)
        scores = query.to(precision) @ key.to(precision).transpose(-1, -2) * attn.scale
        for change in self.changes:
            scores = change(scores)
        batch, heads, _, tokens = scores.shape
        if mask is not None:
            mask = attn.prepare_attention_mask(mask, tokens, batch)
            scores = scores + mask.view(batch, heads, -1, tokens)
        lost = ~scores.detach().amax(-1).isfinite()
        if lost.any():
            raise ModelError(
                f"{self.changes[-1].name}: rewritten scores are nan, +inf, or -inf for every token in {int(lost.sum())} "
                f"of {lost.numel()} rows; leave each cell at least one token"
            )
        return scores.softmax(-1)


@contextmanager
def _installed(layer: Attention, change: _Change) -> Iterator[None]:
    if not isinstance(layer.processor, RewritingProcessor):
        layer.set_processor(RewritingProcessor(layer.processor))
    processor = layer.processor
    processor.changes.append(change)
    try:
        yield
    finally:
        processor.changes.remove(change)
        if not processor.changes and layer.processor is processor:
            layer.set_processor(processor.replaced)


def _check_replaceable(name: str, layer: Attention) -> None:
    if type(layer.processor) not in (*PLAIN, RewritingProcessor):
        raise ModelError(
            f"{name}: its {type(layer.processor).__name__} does more than attention, and rewriting scores would drop that; "
            f"remove it first, or leave the layer out with layers="
        )
