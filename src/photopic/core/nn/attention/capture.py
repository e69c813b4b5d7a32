"""Read the cross-attention probabilities of a UNet; see `capture_attention`."""

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
from photopic.core.nn.attention.layers import Grid, cross_attention, uncompiled
from photopic.core.nn.attention.rewrite import RewritingProcessor

_guided: ContextVar[bool] = ContextVar("guided", default=False)


@contextmanager
def announce_guidance(doubled: bool) -> Iterator[None]:
    """Say that UNet calls inside are doubled by classifier-free guidance, the unconditional half first."""
    token = _guided.set(doubled)
    try:
        yield
    finally:
        _guided.reset(token)


def is_doubled() -> bool:
    """Whether calls made now have an unconditional half, which comes first."""
    return _guided.get()


@dataclass
class AttentionMaps:
    """Cross-attention collected by ``capture_attention``.

    Attributes:
        sums: For every layer the sum over samples and calls of the mean over heads.
        counts: For every layer how many samples were added up.
        calls: For every layer the maps of each call, if they were asked for; empty otherwise.
    """

    sums: dict[str, Float[Tensor, "tokens h w"]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    calls: dict[str, list[Float[Tensor, "samples tokens h w"]]] = field(default_factory=dict)

    def add(self, name: str, samples: Float[Tensor, "samples tokens h w"], *, each: bool = False) -> None:
        """Add the maps of a call of a layer; ``each`` keeps them beside the sums."""
        total = samples.sum(0).float().cpu()
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + len(samples)
        if each:
            self.calls.setdefault(name, []).append(samples.float().cpu())

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
        return _joined([self.sums[name] / self.counts[name] for name in self._chosen(resolution, layers)])

    def each(self, resolution: int | None = None, layers: str = "*") -> Float[Tensor, "calls samples tokens h w"]:
        """Maps of every call and sample, averaged over heads and layers; needs ``capture_attention(each=True)``.

        Args:
            resolution: As ``mean``.
            layers: As ``mean``.

        Raises:
            ModelError: If the calls were not kept, differ in their number of samples, or ``mean`` would raise.
        """
        names = self._chosen(resolution, layers)
        if not self.calls:
            raise ModelError("the maps of single calls were not kept; capture with each=True")
        sizes = sorted({len(call) for name in names for call in self.calls[name]})
        if len(sizes) > 1:
            raise ModelError(f"calls of {sizes} samples cannot be stacked; draw all samples in batches of one size")
        return _joined([torch.stack(self.calls[name]) for name in names])

    def _chosen(self, resolution: int | None, layers: str) -> list[str]:
        chosen = [
            name
            for name, (height, _) in self.resolutions.items()
            if resolution in (None, height) and fnmatchcase(name, layers)
        ]
        if not chosen:
            heights = sorted({height for height, _ in self.resolutions.values()})
            raise ModelError(f"layers {layers!r}: nothing captured at resolution {resolution}, only at {heights}")
        return chosen


@contextmanager
def capture_attention(
    unet: nn.Module,
    tokens: Sequence[int | Sequence[int]] | None = None,
    *,
    guided: bool | None = None,
    each: bool = False,
) -> Iterator[AttentionMaps]:
    """Collect the cross-attention of every UNet call inside the ``with`` block.

    Probabilities are recomputed from the queries and keys that a layer made, beside its processor and not in its place,
    so that the output is the same bit for bit with capture and without, under any processor. Where
    ``rewrite_attention`` is in force its own probabilities are taken.

    Args:
        unet: A diffusers UNet.
        tokens: Token positions, one map each; a sequence of positions gives their mean, for a word of several tokens.
            None gives one map for every position.
        guided: Whether calls are doubled by classifier-free guidance, so that only the second, conditional half counts.
            None: as ``TextToImage.generate`` says, and not doubled elsewhere; pass True around a diffusers pipeline you
            call yourself.
        each: Keep the maps of every call and sample beside the sums; memory grows with the steps.

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
    layers = cross_attention(unet)
    groups = None if tokens is None else [[item] if isinstance(item, int) else list(item) for item in tokens]
    maps = AttentionMaps()
    grid = Grid()

    def collect(name: str, probabilities: Float[Tensor, "batch heads cells tokens"]) -> None:
        doubled = _guided.get() if guided is None else guided
        shares = probabilities.mean(1)  # (batch, heads, cells, tokens) -> (batch, cells, tokens)
        chosen = selected(_conditional(shares) if doubled else shares, groups)
        # -> (batch, tokens, h, w)
        maps.add(name, chosen.mT.unflatten(-1, grid.of(name, chosen.shape[1])), each=each)

    with ExitStack() as stack:
        stack.enter_context(uncompiled(unet))
        stack.enter_context(grid.watching(unet))
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

    def take(probabilities: Tensor) -> None:
        with torch.no_grad():
            collect(probabilities.detach())

    def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        made.clear()  # a call that raised may have left something
        if not isinstance(layer.processor, RewritingProcessor):
            return None
        return args, kwargs | {"watchers": (*kwargs.get("watchers", ()), take)}

    def finish(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        query, key = made.pop("query"), made.pop("key")
        if not isinstance(layer.processor, RewritingProcessor):
            with torch.no_grad():
                collect(_probabilities(layer, query, key, kwargs.get("attention_mask")))

    stack.callback(layer.register_forward_pre_hook(ask, with_kwargs=True).remove)
    stack.callback(layer.to_q.register_forward_hook(keep("query")).remove)
    stack.callback(layer.to_k.register_forward_hook(keep("key")).remove)
    stack.callback(layer.register_forward_hook(finish, with_kwargs=True).remove)


def _probabilities(
    layer: Attention, query: Tensor, key: Tensor, mask: Tensor | None
) -> Float[Tensor, "batch heads cells tokens"]:
    """softmax(query key^T / sqrt(head_dim))."""
    batch, tokens = key.shape[:2]
    if mask is not None:
        mask = layer.prepare_attention_mask(mask, tokens, batch)
    query, key = layer.head_to_batch_dim(query), layer.head_to_batch_dim(key)  # (batch * heads, n, head_dim)
    if layer.norm_q is not None:
        query = layer.norm_q(query)
    if layer.norm_k is not None:
        key = layer.norm_k(key)
    scores = layer.get_attention_scores(query.float(), key.float(), mask)  # (batch * heads, cells, tokens)
    return scores.unflatten(0, (batch, layer.heads))


def _conditional(probabilities: Float[Tensor, "batch cells tokens"]) -> Float[Tensor, "half cells tokens"]:
    batch = probabilities.shape[0]
    if batch % 2:
        raise ModelError(f"guided capture: a batch of {batch} is not two halves; pass guided=False for unguided calls")
    return probabilities[batch // 2 :]


def selected(
    probabilities: Float[Tensor, "batch cells tokens"], groups: list[list[int]] | None
) -> Float[Tensor, "batch cells chosen"]:
    """The mean over the tokens of each group; without groups all tokens.

    Raises:
        ModelError: If a position does not exist.
    """
    if groups is None:
        return probabilities
    length = probabilities.shape[-1]  # tokens
    wrong = [position for group in groups for position in group if not 0 <= position < length]
    if wrong:
        raise ModelError(f"token position {wrong[0]} does not exist; the encoded prompt has 0 to {length - 1}")
    return torch.stack([probabilities[..., group].mean(-1) for group in groups], dim=-1)


def _joined(parts: Sequence[Float[Tensor, "*any _ _"]]) -> Float[Tensor, "*any _ _"]:
    """The mean over layers, each enlarged to the largest."""
    size = max((part.shape[-2], part.shape[-1]) for part in parts)
    enlarged = [
        F.interpolate(part.reshape(1, -1, *part.shape[-2:]), size=size, mode="bilinear").reshape(
            *part.shape[:-2], *size
        )
        for part in parts
    ]
    return torch.stack(enlarged).mean(0)
