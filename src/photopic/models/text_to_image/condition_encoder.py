"""Conditions as a UNet reads them: an adapter beside a text-to-image model, whose own weights stay as they are.

Paper: Composer (arXiv:2302.09778). Global conditions are added to the timestep embedding and become tokens beside the caption's;
local ones go through a small stack each, are summed, and reach the first convolution. Concatenating the sum to the noisy latents
is a second convolution beside the first; it is zero at first. Changed: the paper trains the whole network; here it is frozen, and
the sum also goes through a small network whose features are added, through zero projections scaled by the timestep, to the output
of residual blocks. Tokens that are dropped are masked, not zero, so a row without conditions is the base's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn

from photopic.data.conditions import KINDS
from photopic.data.palette import BINS

TOKENS = 4  # of each global condition
VECTORS = ("embedding", "palette")  # the global conditions that are numbers
HIDDEN = 24  # channels of a stack after its first convolution
GROUPS = 8  # of group normalisation


@dataclass(frozen=True)
class Shape:
    """What decides the tensors of a ``ConditionEncoder``.

    Attributes:
        names: Of the conditions that it reads, captions left out, which the base reads itself.
        embedding: Numbers of an image embedding.
        time: Of the timestep embedding.
        text: Of a token.
        blocks: Channels of the UNet's levels, from the finest on.
        latent: Side of the latents.
        width: Channels of a stack's result.
        trunk: Channels of the features of each level.
    """

    names: tuple[str, ...]
    embedding: int
    time: int
    text: int
    blocks: tuple[int, ...]
    latent: int
    width: int = 32
    trunk: tuple[int, ...] = (64, 96, 128)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Conditions as the hooks use them, one row a picture.

    Attributes:
        any: 1 where a row has any condition, (n, 1).
        time: Added to the timestep embedding.
        tokens: Beside those of the prompt.
        told: 1 where a token is read.
        local: For the first convolution.
        features: For the residual blocks of each level.
    """

    any: Float[Tensor, "n 1"]
    time: Float[Tensor, "n time"]
    tokens: Float[Tensor, "n tokens text"]
    told: Float[Tensor, "n tokens"]
    local: Float[Tensor, "n channels h w"]
    features: tuple[Tensor, ...]

    def rows(self, index: Any) -> Encoded:
        """Some rows, as a tensor is indexed."""
        kept = {each.name: getattr(self, each.name)[index] for each in fields(self) if each.name != "features"}
        return replace(self, **kept, features=tuple(each[index] for each in self.features))

    def joined(self, other: Encoded) -> Encoded:
        """These rows and then those of another."""
        names = [each.name for each in fields(self) if each.name != "features"]
        both = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names}
        pairs = zip(self.features, other.features, strict=True)
        return replace(self, **both, features=tuple(torch.cat(pair) for pair in pairs))


class ConditionEncoder(nn.Module):
    """Reads conditions and adds what it makes of them to a UNet of diffusers.

    Args:
        shape: What decides its tensors.

    Example:
        >>> shape = Shape(("palette", "sketch"), 8, 32, 16, (16, 16), 8, trunk=(16, 16))
        >>> encoder = ConditionEncoder(shape)
        >>> found = encoder({"palette": torch.ones(2, 156)}, {"palette": torch.tensor([1.0, 0.0])})
        >>> found.told[:, 0].tolist(), found.any.flatten().tolist()
        ([1.0, 0.0], [1.0, 0.0])
    """

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        width, time = shape.width, shape.time
        sizes = {"embedding": shape.embedding, "palette": BINS}
        self.vectors = tuple(name for name in VECTORS if name in shape.names)
        self.locals = tuple(name for name in shape.names if name not in VECTORS)
        self.to_time = nn.ModuleDict({name: _vector(sizes[name], time) for name in self.vectors})
        self.to_tokens = nn.ModuleDict({name: nn.Linear(sizes[name], TOKENS * shape.text) for name in self.vectors})
        self.stacks = nn.ModuleDict({name: _stack(KINDS[name].channels, width) for name in self.locals})
        self.conv_new = zero(nn.Conv2d(width, shape.blocks[0], 3, padding=1))
        channels = (width, *shape.trunk)
        self.levels = nn.ModuleList(
            _Level(below, own, time, stride=2 if index else 1) for index, (below, own) in enumerate(pairwise(channels))
        )
        self.adds = nn.ModuleDict()
        self.gates = nn.ModuleDict()
        for name, level, own in points(shape.blocks):
            self.adds[name] = zero(nn.Conv2d(shape.trunk[level], own, 1))
            self.gates[name] = zero(nn.Linear(time, own))

    def forward(self, values: Mapping[str, Tensor], kept: Mapping[str, Float[Tensor, " n"]]) -> Encoded:
        """Encode.

        Args:
            values: As ``Conditions.channels`` has them, one row a picture, of any side; those of no picture may be missing.
            kept: By the same names 1 where a picture has the condition and 0 where not: whatever its value is then has no
                effect.
        """
        count, shape, zeros = len(next(iter(kept.values()))), self.shape, self.conv_new.weight.new_zeros
        given = {name: kept[name].to(self.conv_new.weight) for name in shape.names if name in kept and name in values}
        time, local = zeros(count, shape.time), zeros(count, shape.width, shape.latent, shape.latent)
        tokens, told = [], []
        for name in self.vectors:
            own = given.get(name, zeros(count))
            token = zeros(count, TOKENS, shape.text)
            if name in given:
                vector = _scaled(name, values[name].to(time))
                time = time + self.to_time[name](vector) * own[:, None]
                token = self.to_tokens[name](vector).unflatten(1, (TOKENS, -1)) * own[:, None, None]
            tokens.append(token)
            told.append(own[:, None].expand(-1, TOKENS))
        for name in self.locals:
            if name in given:  # 4 x the side of the latents, which two strides of 2 bring to theirs
                pooled = F.adaptive_avg_pool2d(values[name].to(local), 4 * shape.latent)
                local = local + self.stacks[name](pooled) * given[name][:, None, None, None]
        found = torch.stack(list(given.values())).amax(0) if given else zeros(count)
        features, below = [], local
        for level in self.levels:
            below = level(below, time)
            features.append(below)
        return Encoded(
            found[:, None],
            time,
            torch.cat(tokens, 1) if tokens else zeros(count, 0, shape.text),
            torch.cat(told, 1) if told else zeros(count, 0),
            local,
            tuple(features),
        )

    @contextmanager
    def acting(self, unet: nn.Module, encoded: Encoded | Any) -> Iterator[None]:
        """A block in which the calls of a UNet read conditions.

        Args:
            unet: Of the shape it was made for.
            encoded: One row for each of the call's, or a function of their number that returns it.
        """
        held: dict[str, Any] = {}

        def begin(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            now = encoded(len(args[0])) if callable(encoded) else encoded
            held["now"] = now
            if not bool(now.told.any()):  # nobody reads a token: the text alone, as in the base
                return args, kwargs
            text = kwargs["encoder_hidden_states"] if "encoder_hidden_states" in kwargs else args[2]
            told = torch.cat([now.told.new_ones(text.shape[:2]), now.told], 1)
            joined = torch.cat([text, now.tokens.to(text)], 1)
            args = args[:2]
            return args, {**kwargs, "encoder_hidden_states": joined, "encoder_attention_mask": told.to(text)}

        def timed(_: Any, args: Any, output: Tensor) -> Tensor:
            found = output + (held["now"].time * held["now"].any).to(output)
            held["time"] = found
            return found

        def first(_: Any, args: Any, output: Tensor) -> Tensor:
            now = held["now"]
            return output + (self.conv_new(now.local) * now.any[:, :, None, None]).to(output)

        def block(name: str, level: int) -> Any:
            def added(_: Any, args: Any, output: Tensor) -> Tensor:
                now = held["now"]
                gate = (1 + self.gates[name](held["time"].to(now.time))) * now.any  # (n, channels)
                return output + (self.adds[name](now.features[level]) * gate[:, :, None, None]).to(output)

            return added

        with ExitStack() as stack:
            network: Any = unet
            handles = [
                network.register_forward_pre_hook(begin, with_kwargs=True),
                network.time_embedding.register_forward_hook(timed),
                network.conv_in.register_forward_hook(first),
            ]
            for name, level, _ in points(self.shape.blocks):
                layer = network.get_submodule(name.replace("-", "."))
                assert isinstance(layer, ResnetBlock2D)
                handles.append(layer.register_forward_hook(block(name, level)))
            for handle in handles:
                stack.callback(handle.remove)
            yield


def points(blocks: Sequence[int]) -> list[tuple[str, int, int]]:
    """The first residual blocks that features are added to, with their level and channels; ``-`` stands for a dot.

    Example:
        >>> points((48, 96))[0], len(points((48, 96)))
        (('down_blocks-0-resnets-0', 0, 48), 7)
    """
    last = len(blocks) - 1
    found = [(f"down_blocks-{level}-resnets-0", level, own) for level, own in enumerate(blocks)]
    found.append(("mid_block-resnets-0", last, blocks[-1]))
    for index, own in enumerate(reversed(blocks)):
        found += [(f"up_blocks-{index}-resnets-{number}", last - index, own) for number in range(2)]
    return found


def zero(layer: Any) -> Any:
    """The layer with zero weights: what comes of it is nothing until it is trained."""
    for each in layer.parameters():
        nn.init.zeros_(each)
    return layer


class _Level(nn.Module):
    """Features of one level: a convolution, then a residual block that the global conditions scale."""

    def __init__(self, below: int, own: int, time: int, stride: int):
        super().__init__()
        self.enter = nn.Conv2d(below, own, 3, stride=stride, padding=1)
        self.norm, self.inner = nn.GroupNorm(GROUPS, own), nn.Conv2d(own, own, 3, padding=1)
        self.scale = zero(nn.Linear(time, 2 * own))
        self.outer = nn.Conv2d(own, own, 3, padding=1)

    def forward(self, below: Tensor, time: Tensor) -> Tensor:
        entered = self.enter(F.silu(below))
        scale, shift = self.scale(time)[:, :, None, None].chunk(2, 1)  # (n, own, 1, 1) each
        inner = self.inner(F.silu(self.norm(entered) * (1 + scale) + shift))
        return F.silu(entered + self.outer(F.silu(inner)))


def _stack(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, HIDDEN, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(HIDDEN, width, 3, stride=2, padding=1),
    )


def _vector(size: int, time: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, time), nn.SiLU(), zero(nn.Linear(time, time)))


def _scaled(name: str, vector: Tensor) -> Tensor:
    """Entries of about 1: a palette's are about 1/80, and so is the square of an embedding's."""
    return 3 * vector.sqrt() if name == "palette" else vector * vector.shape[-1] ** 0.5
