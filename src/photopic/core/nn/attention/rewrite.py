"""Rewrite the attention of a UNet: scores before the softmax, or queries, keys and values; see `rewrite_attention`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
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
from photopic.core.nn.attention.layers import Grid, Kind, attention_layers, kind_of, uncompiled

# these compute the same function in different ways, so that another way may stand in for them
PLAIN = (AttnProcessor, AttnProcessor2_0, AttnProcessorNPU, SlicedAttnProcessor, XFormersAttnProcessor)

Watcher: TypeAlias = Callable[[Float[Tensor, "batch heads cells tokens"]], None]


@dataclass(frozen=True)
class Place:
    """Where in the network something is from.

    Attributes:
        name: The layer or block, such as ``mid_block.attentions.0.transformer_blocks.0.attn2``.
        height: Rows of its grid of latent cells; ``height * width`` is the number of cells.
        width: Columns of the grid; cells are counted row by row.
        heads: Number of attention heads.
        kind: ``cross``: a layer that reads the prompt; ``self``: one in which cells read cells; ``block``: a transformer block.
        rows: Which samples the given rows are, where they are not all of a batch: those of a transformer that are told the prompts,
            and of several lengths of prompts one.
    """

    name: str
    height: int
    width: int
    heads: int
    kind: Literal["cross", "self", "block"] = "cross"
    rows: tuple[int, ...] | None = None


Rewrite: TypeAlias = Callable[
    [Float[Tensor, "batch heads cells tokens"], Place], Float[Tensor, "batch heads cells tokens"]
]
RewriteQKV: TypeAlias = Callable[[Tensor, Tensor, Tensor, Place], tuple[Tensor, Tensor, Tensor]]


@contextmanager
def rewrite_attention(
    unet: nn.Module,
    rewrite: Rewrite | None = None,
    *,
    qkv: RewriteQKV | None = None,
    kinds: tuple[Kind, ...] = ("cross",),
    layers: str = "*",
) -> Iterator[None]:
    """Let functions rewrite the attention of every UNet call inside the ``with`` block.

    Used inside another ``rewrite_attention`` it sees what the outer one returned. ``capture_attention``, inside or
    around it, reports the probabilities that result. Gradients flow through. Compiled modules run uncompiled inside.

    Args:
        unet: A diffusers UNet.
        rewrite: Gets the scores Q K^T / sqrt(head_dim), in float32 and before the attention mask is added, of the whole
            batch (both halves under guidance), and where they are from; returns the scores to use. ``-inf`` at a token
            gives it a probability of exactly 0.
        qkv: Gets queries, keys and values (batch, heads, n, head_dim) before that, and where they are from; returns those to use.
            Alone it leaves the attention itself to PyTorch, so that one that changes nothing changes no bit.
        kinds: ``cross`` for layers that read the prompt, ``self`` for those in which cells read cells.
        layers: Name pattern of the layers to touch, such as ``"up_blocks.*"``; the others keep their processor.

    Yields:
        Nothing; layers have their processors back when the block ends, also when it raises.

    Raises:
        ModelError: If no such layer matches; a layer's processor is not one of diffusers' plain ones (an
            IP-Adapter's, say), whose work a rewrite would drop; or, in a call, the rewrite returns another shape, or
            leaves a cell no token.

    Example:
        >>> def without_bear(scores, place):
        ...     return scores.index_fill(-1, torch.tensor([2]), -torch.inf)
        >>> with rewrite_attention(model.unet, without_bear):  # doctest: +SKIP
        ...     model.generate("a bear on a red background", seeds=[0])
    """
    chosen = attention_layers(unet, kinds, layers)
    for name, layer in chosen.items():
        _check_replaceable(name, layer)
    grid = Grid()
    with ExitStack() as stack:
        stack.enter_context(uncompiled(unet))
        stack.enter_context(grid.watching(unet))
        for name, layer in chosen.items():
            stack.enter_context(_installed(layer, _Change(rewrite, qkv, name, kind_of(layer), grid)))
        yield


@dataclass(frozen=True, eq=False)
class _Change:
    """One rewrite of one layer."""

    rewrite: Rewrite | None
    qkv: RewriteQKV | None
    name: str
    kind: Kind
    grid: Grid

    def scores(self, scores: Float[Tensor, "batch heads cells tokens"]) -> Float[Tensor, "batch heads cells tokens"]:
        assert self.rewrite is not None
        return checked_shape(self.name, "scores", self.rewrite(scores, self._place(scores)), scores).to(scores.dtype)

    def projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.qkv is None:
            return query, key, value
        changed = self.qkv(query, key, value, self._place(query))
        checked_shape(self.name, "queries", changed[0], query)  # the number of keys and values may change
        return changed

    def _place(self, found: Float[Tensor, "batch heads cells _"]) -> Place:
        return Place(self.name, *self.grid.of(self.name, found.shape[2]), heads=found.shape[1], kind=self.kind)


def checked_shape(name: str, what: str, changed: Any, given: Tensor) -> Tensor:
    """What a rewrite returned, if it is a tensor of the shape it was given.

    Raises:
        ModelError: Names the layer and both shapes.
    """
    if not isinstance(changed, Tensor) or changed.shape != given.shape:
        found = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise ModelError(f"{name}: the rewrite must return {what} of {tuple(given.shape)}, found {found}")
    return changed


class RewritingProcessor:
    """Attention as diffusers computes it, with changes in the order they were installed.

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
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        for change in self.changes:
            query, key, value = change.projected(query, key, value)
        hidden_states = self._attended(attn, query, key, value, attention_mask, watchers)
        hidden_states = attn.to_out[0](hidden_states.transpose(1, 2).flatten(2).to(query.dtype))
        hidden_states = attn.to_out[1](hidden_states)
        if image_shape is not None:
            hidden_states = hidden_states.transpose(-1, -2).reshape(image_shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        return hidden_states / attn.rescale_output_factor

    def _attended(
        self,
        attn: Attention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        watchers: tuple[Watcher, ...],
    ) -> Float[Tensor, "batch heads cells head_dim"]:
        """The mean of the values; by PyTorch's own kernel where no scores are rewritten."""
        rewritten = any(change.rewrite is not None for change in self.changes)
        if rewritten or watchers:
            probabilities = self._probabilities(attn, query, key, mask)
            for watch in watchers:
                watch(probabilities)
        if rewritten:
            return (
                probabilities.to(value.dtype) @ value
            )  # (batch, heads, cells, tokens) (batch, heads, tokens, head_dim)
        if mask is not None:
            mask = attn.prepare_attention_mask(mask, key.shape[2], len(query))
            mask = mask.view(len(query), attn.heads, -1, mask.shape[-1])
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def _probabilities(
        self, attn: Attention, query: Tensor, key: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "batch heads cells tokens"]:
        precision = torch.promote_types(query.dtype, torch.float32)
        scores = query.to(precision) @ key.to(precision).transpose(-1, -2) * attn.scale
        for change in self.changes:
            scores = scores if change.rewrite is None else change.scores(scores)
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
