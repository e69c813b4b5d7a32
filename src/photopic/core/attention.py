"""Read cross-attention probabilities of diffusers UNets, per text token and resolution.

The probabilities are recomputed from the queries and keys the layer itself made, beside the attention processor in use
and not in its place. So the output with capture equals the output without it bit for bit, under any processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import ModelError

_guided: ContextVar[bool] = ContextVar("guided", default=False)


@contextmanager
def announce_guidance(doubled: bool) -> Iterator[None]:
    """Say that UNet calls inside are doubled by classifier-free guidance, the unconditional half first."""
    token = _guided.set(doubled)
    try:
        yield
    finally:
        _guided.reset(token)


@dataclass
class AttentionMaps:
    """Cross-attention collected by ``capture_attention``: for every layer sums over samples and steps of head means."""

    sums: dict[str, Float[Tensor, "tokens h w"]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def resolutions(self) -> dict[str, tuple[int, int]]:
        """(height, width) in latent cells of every layer seen."""
        return {name: (total.shape[1], total.shape[2]) for name, total in self.sums.items()}

    def mean(self, resolution: int | None = None, layers: str = "*") -> Float[Tensor, "tokens h w"]:
        """Maps averaged over heads, layers, steps and samples, float32 on the CPU.

        Args:
            resolution: Height in latent cells of the layers to average; None takes all, enlarged to the largest.
            layers: Name pattern of the layers to average.

        Returns:
            For every requested token the share of a cell's attention that it gets, 0 to 1.

        Raises:
            ModelError: If nothing was captured at that resolution by such a layer.
        """
        chosen = [
            self.sums[name] / self.counts[name]
            for name, (height, _) in self.resolutions.items()
            if resolution in (None, height) and fnmatchcase(name, layers)
        ]
        if not chosen:
            heights = sorted({height for height, _ in self.resolutions.values()})
            raise ModelError(f"layers {layers!r}: nothing captured at resolution {resolution}, only at {heights}")
        size = max((part.shape[1], part.shape[2]) for part in chosen)
        enlarged = [F.interpolate(part[None], size=size, mode="bilinear")[0] for part in chosen]
        return torch.stack(enlarged).mean(0)  # (layers, tokens, h, w) -> (tokens, h, w)


@contextmanager
def capture_attention(
    unet: nn.Module, tokens: Sequence[int | Sequence[int]] | None = None, *, guided: bool | None = None
) -> Iterator[AttentionMaps]:
    """Collect the cross-attention of every UNet call inside the ``with`` block.

    Args:
        unet: A diffusers UNet.
        tokens: Token positions, one map each; a sequence of positions gives their mean, for a word of several tokens.
            None gives one map for every position.
        guided: Whether calls are doubled by classifier-free guidance, so that only the second, conditional half counts.
            None: as ``TextToImage.generate`` says, and not doubled elsewhere; pass True around a diffusers pipeline you
            call yourself.

    Yields:
        The maps, filled while the block runs.

    Raises:
        ModelError: If there is no cross-attention layer, a token position does not exist, or a guided batch is odd.

    Example:
        >>> bear = model.token_positions("a bear", "bear")  # doctest: +SKIP
        >>> with capture_attention(model.unet, tokens=bear) as maps:  # doctest: +SKIP
        ...     model.generate("a bear", seeds=[0])
        >>> maps.mean().shape  # doctest: +SKIP
        torch.Size([1, 16, 16])
    """
    layers = {
        name: part for name, part in unet.named_modules() if isinstance(part, Attention) and part.is_cross_attention
    }
    if not layers:
        raise ModelError(f"{type(unet).__name__} has no cross-attention layer to read; give the UNet of a pipeline")
    groups = None if tokens is None else [[item] if isinstance(item, int) else list(item) for item in tokens]
    maps = AttentionMaps()
    grid: list[int] = []  # height and width of the latents of the running call

    def remember_grid(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        grid[:] = (args[0] if args else kwargs["sample"]).shape[-2:]

    def collect(name: str, probabilities: Float[Tensor, "batch cells tokens"]) -> None:
        doubled = _guided.get() if guided is None else guided
        chosen = _select(_conditional(probabilities) if doubled else probabilities, groups)
        height, width = _grid_of(chosen.shape[1], *grid)
        total = chosen.sum(0).T.reshape(-1, height, width).float().cpu()  # (batch, cells, tokens) -> (tokens, h, w)
        maps.sums[name] = maps.sums[name] + total if name in maps.sums else total
        maps.counts[name] = maps.counts.get(name, 0) + chosen.shape[0]

    with ExitStack() as stack:
        stack.callback(unet.register_forward_pre_hook(remember_grid, with_kwargs=True).remove)
        for name, layer in layers.items():
            _watch(stack, layer, partial(collect, name))
        yield maps


def _watch(stack: ExitStack, layer: Attention, collect: Callable[[Tensor], None]) -> None:
    """Hook one layer: keep its query and key of a call and hand on the probabilities when the call ends."""
    made: dict[str, Tensor] = {}

    def keep(role: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            # an IP-Adapter projects its image tokens with layers of its own, so the first key is the text's
            made.setdefault(role, output.detach())

        return hook

    def finish(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        mask = kwargs.get("attention_mask")
        with torch.no_grad():
            collect(_probabilities(layer, made.pop("query"), made.pop("key"), mask))

    stack.callback(layer.to_q.register_forward_hook(keep("query")).remove)
    stack.callback(layer.to_k.register_forward_hook(keep("key")).remove)
    stack.callback(layer.register_forward_hook(finish, with_kwargs=True).remove)


def _probabilities(layer: Attention, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(query key^T / sqrt(head_dim)), averaged over heads: (batch, cells, tokens)."""
    batch, tokens = key.shape[:2]
    if mask is not None:
        mask = layer.prepare_attention_mask(mask, tokens, batch)
    query, key = layer.head_to_batch_dim(query), layer.head_to_batch_dim(key)  # (batch * heads, n, head_dim)
    if layer.norm_q is not None:
        query = layer.norm_q(query)
    if layer.norm_k is not None:
        key = layer.norm_k(key)
    scores = layer.get_attention_scores(query.float(), key.float(), mask)  # (batch * heads, cells, tokens)
    return scores.unflatten(0, (batch, layer.heads)).mean(1)


def _conditional(probabilities: Float[Tensor, "batch cells tokens"]) -> Float[Tensor, "half cells tokens"]:
    batch = probabilities.shape[0]
    if batch % 2:
        raise ModelError(f"guided capture: a batch of {batch} is not two halves; pass guided=False for unguided calls")
    return probabilities[batch // 2 :]


def _select(
    probabilities: Float[Tensor, "batch cells tokens"], groups: list[list[int]] | None
) -> Float[Tensor, "batch cells chosen"]:
    if groups is None:
        return probabilities
    length = probabilities.shape[-1]
    wrong = [position for group in groups for position in group if not 0 <= position < length]
    if wrong:
        raise ModelError(f"token position {wrong[0]} does not exist; the encoded prompt has 0 to {length - 1}")
    return torch.stack([probabilities[..., group].mean(-1) for group in groups], dim=-1)


def _grid_of(cells: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a layer with that many cells: the latents halved, rounding up, until they fit."""
    while height * width > cells:
        height, width = -(-height // 2), -(-width // 2)
    return height, width
