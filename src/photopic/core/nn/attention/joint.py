"""Read and rewrite how a picture's tokens read those of the text in a transformer, where both may be in one attention.

A call of the attention kernel is met by a ``TorchFunctionMode`` and not by hooks, because diffusers has a processor of its own for
every transformer; which layer is running is known by hooks on the layers. Of queries and keys the part in which pictures read text
is taken out: it is all that controls and maps see, while the softmax runs over all keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from photopic.core.errors import ModelError
from photopic.core.nn.attention.capture import AttentionMaps, selected
from photopic.core.nn.attention.layers import plain, uncompiled
from photopic.core.nn.attention.rewrite import Place, Rewrite, checked_shape

Watch: TypeAlias = Callable[[Float[Tensor, "batch heads cells tokens"], Place], None]

_watching: ContextVar[tuple[Watch, ...]] = ContextVar("watching", default=())


@dataclass(frozen=True)
class JointCall:
    """What one call of a transformer computes on.

    Attributes:
        height: Rows of the picture's tokens.
        width: Columns.
        image_first: Whether the picture's tokens stand before the text's where both are in one sequence.
        crossed: Whether keys are the text's alone.
        padded: How many tokens a sequence of the picture's has a multiple of.
        own: Rows of the batch that are told the prompts, and not what guidance leads away from.
        rows: Which samples these are.
        layers: Names of the layers in which the picture reads text.
    """

    height: int
    width: int
    image_first: bool
    crossed: bool
    padded: int
    own: tuple[int, ...]
    rows: tuple[int, ...]
    layers: tuple[str, ...]

    @property
    def cells(self) -> int:
        """Tokens of the picture."""
        return self.height * self.width

    def spans(self, queries: int, keys: int) -> tuple[slice, slice] | None:
        """Which queries are the picture's, and which keys the text's; None where it reads no text.

        Example:
            >>> call = JointCall(2, 2, False, False, 1, (0,), (0,), ())
            >>> call.spans(7, 7)
            (slice(3, 7, None), slice(0, 3, None))
        """
        if self.crossed:
            return (slice(0, self.cells), slice(0, keys)) if queries == self.cells else None
        padded = -(-self.cells // self.padded) * self.padded  # up to the next multiple
        if keys <= padded or queries not in (keys, self.cells):
            return None
        text = slice(padded, keys) if self.image_first else slice(0, keys - padded)
        # the picture's queries alone, or those of both in the order of the keys
        first = 0 if self.image_first or queries == self.cells else keys - padded
        return slice(first, first + self.cells), text


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Hand on what the attention of every transformer call inside gives to text; nothing else changes."""
    token = _watching.set((*_watching.get(), watch))
    try:
        yield
    finally:
        _watching.reset(token)


def is_watched() -> bool:
    """Whether anybody looks at the attention of transformer calls made now."""
    return bool(_watching.get())


@contextmanager
def capture_joint_attention(tokens: Sequence[int | Sequence[int]] | None = None) -> Iterator[AttentionMaps]:
    """Collect how much of a cell's attention each token of the text gets, in every transformer call inside.

    Args:
        tokens: Positions in the part of the attention that is text, one map each, a sequence of them for their mean; None: all.

    Yields:
        The maps; what they lack of a sum of 1 goes to the picture itself.
    """
    groups = None if tokens is None else [[item] if isinstance(item, int) else list(item) for item in tokens]
    maps = AttentionMaps()

    def collect(probabilities: Tensor, place: Place) -> None:
        chosen = selected(probabilities.mean(1), groups)  # (batch, heads, cells, tokens) -> (batch, cells, chosen)
        maps.add(place.name, chosen.mT.unflatten(-1, (place.height, place.width)))  # -> (batch, chosen, h, w)

    with watching(collect):
        yield maps


@dataclass
class _Running:
    """The layers that are running, the innermost last."""

    names: list[str] = field(default_factory=list)


@contextmanager
def joint_attention(transformer: nn.Module, call: JointCall, rewrite: Rewrite | None = None) -> Iterator[None]:
    """One call of a transformer in which scores of the picture's queries at the text's keys may be rewritten, and are watched.

    Args:
        transformer: Of diffusers.
        call: What it computes on.
        rewrite: As in ``rewrite_attention``, of the rows of ``call.own`` alone.

    Raises:
        ModelError: If the rewrite returns another shape, or no layer of ``call.layers`` calls PyTorch's attention.
    """
    running, modules = _Running(), dict(plain(transformer).named_modules())
    mode = _Mode(running, call, rewrite, _watching.get())
    with ExitStack() as stack:
        stack.enter_context(uncompiled(transformer))
        for name in call.layers:
            enter, leave = _followed(running, name)
            stack.callback(modules[name].register_forward_pre_hook(enter).remove)
            stack.callback(modules[name].register_forward_hook(leave, always_call=True).remove)
        stack.enter_context(mode)
        yield
    if not mode.met:
        raise ModelError(
            f"{type(transformer).__name__}: expected attention of pictures to text in {', '.join(call.layers[:2])}, found none; "
            "set another attention backend"
        )


def _followed(running: _Running, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Hooks that say when a layer begins and ends."""

    def enter(module: nn.Module, args: Any) -> None:
        running.names.append(name)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.names.pop()

    return enter, leave


class _Mode(TorchFunctionMode):
    """Computes attention as PyTorch does, with the scores of one part rewritten."""

    def __init__(self, running: _Running, call: JointCall, rewrite: Rewrite | None, watchers: Sequence[Watch]):
        super().__init__()
        self.running, self.call, self.rewrite, self.watchers, self.met = running, call, rewrite, watchers, False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention or not self.running.names:
            return function(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        query, key = given["query"], given["key"]  # (batch, heads, n, head_dim)
        spans = self.call.spans(query.shape[-2], key.shape[-2])
        if spans is None:
            return function(*args, **kwargs)
        self.met = True
        return self._attended(given, spans, lambda: function(*args, **kwargs))

    def _attended(self, given: dict[str, Any], spans: tuple[slice, slice], stock: Callable[[], Tensor]) -> Tensor:
        query, key, value = (given[name] for name in ("query", "key", "value"))
        images, text = spans
        own = torch.tensor(self.call.own, device=query.device)
        repeated = query.shape[1] // key.shape[1]  # grouped queries share a key
        keys = key.repeat_interleave(repeated, 1)
        scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
        scores = query.float() @ keys.float().transpose(-1, -2) * scale  # (batch, heads, queries, keys)
        place = Place(
            self.running.names[-1], self.call.height, self.call.width, heads=query.shape[1], rows=self.call.rows
        )
        if self.rewrite is not None:
            part = scores[own][..., images, text]  # (own, heads, cells, tokens)
            changed = checked_shape(place.name, "scores", self.rewrite(part, place), part).to(scores.dtype)
            rows = scores[own].clone()
            rows[..., images, text] = changed
            scores = scores.index_copy(0, own, rows)
        probabilities = _masked(scores, given).softmax(-1)
        for watch in self.watchers:
            watch(probabilities[own][..., images, text].detach(), place)
        if self.rewrite is None:
            return stock()  # not a bit differs from a call that nobody looks at
        return probabilities.to(value.dtype) @ value.repeat_interleave(repeated, 1)


def _masked(scores: Float[Tensor, "batch heads queries keys"], given: dict[str, Any]) -> Tensor:
    """Scores with the kernel's mask: truth values hide keys, numbers are added to scores."""
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
