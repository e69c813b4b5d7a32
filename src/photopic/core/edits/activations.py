"""Parts of an edit that change no parameter: what flows through a module, and the noise that sampling starts from.

Each of the first three says which modules it hooks, as ``<component>.<module name>`` (the component alone is the whole network),
and how it changes their output at a weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.edits.dense import _checked, _is_finite
from photopic.core.edits.part import Hook, ModuleOf, Part, Weights
from photopic.core.edits.positions import Positions
from photopic.core.errors import EditError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda x: x, "relu": F.relu, "gelu": F.gelu}


class _OnOutput(Part, ABC):
    """What the three kinds share: one hook a module, on what it puts out."""

    @property
    def is_empty(self) -> bool:
        return not self.modules()

    def hooks(self, weight: Weights, module_of: ModuleOf) -> Iterator[tuple[str, Hook]]:
        return ((name, self.hook(name, weight(name))) for name in self.modules() if weight(name) != 0)

    @abstractmethod
    def hook(self, name: str, weight: float) -> Hook:
        """The output of one module at a weight."""


@dataclass(frozen=True, eq=False)
class TokenResidual(_OnOutput):
    """What is added to a text encoder's output where words stand (the concept residual of Cones 2, arXiv 2305.19327).

    Attributes:
        ids: Component, such as ``text_encoder``, to the token ids of the words in its tokenizer, in order. Where all words are new
            tokens, one an id, a stack looks their ids up when the edit is applied.
        residuals: The same components to one residual a token, shape (tokens, dim).
        words: What to write in a prompt.

    Example:
        >>> TokenResidual("bear", {"text_encoder": (7,)}, {"text_encoder": torch.zeros(1, 8)}).modules()
        ('text_encoder',)
    """

    kind: ClassVar[str] = "residual"
    words: str
    ids: Mapping[str, tuple[int, ...]]
    residuals: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        residuals = _checked(self.residuals, 2, "token residual")
        ids = {name: tuple(map(int, each)) for name, each in sorted(self.ids.items())}
        if not self.words.strip() or ids.keys() != residuals.keys() or not ids:
            raise EditError(
                f"token residual {self.words!r}: expected words, and ids and residuals for the same encoders"
            )
        for name, each in ids.items():
            if len(each) != len(residuals[name]) or min(each, default=-1) < 0:
                raise EditError(
                    f"token residual {self.words!r}: {name}: expected one residual a token id, found {len(each)} ids and "
                    f"{len(residuals[name])} residuals"
                )
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "residuals", residuals)

    def modules(self) -> tuple[str, ...]:
        """What it hooks."""
        return tuple(self.residuals)

    def hook(self, name: str, weight: float) -> Hook:
        """The output with the residuals added wherever the ids stand in a row."""
        ids, residual = torch.tensor(self.ids[name]), self.residuals[name]

        def add(module: Any, given: Mapping[str, Any], output: Any) -> Any:
            tokens = given.get("input_ids")  # (batch, tokens)
            if tokens is None or tokens.shape[1] < len(ids):
                return output
            starts = (tokens.unfold(1, len(ids), 1) == ids.to(tokens.device)).all(-1)  # (batch, tokens - ids + 1)

            def with_rows(hidden: Tensor) -> Tensor:
                added = torch.zeros_like(hidden)  # (batch, tokens, dim)
                for offset, row in enumerate(weight * residual.to(hidden)):  # (ids, dim): a row for each word in turn
                    added[:, offset : offset + starts.shape[1]] += starts.to(hidden.device).unsqueeze(-1) * row
                return hidden + added

            if not isinstance(output, Mapping):
                return replaced(output, with_rows(output[0]))
            changed: dict[str, Any] = {}
            if "last_hidden_state" in output:
                changed["last_hidden_state"] = with_rows(output["last_hidden_state"])
            if output.get("hidden_states") is not None:  # of these pipelines read one that is not the last, or several
                embedded, *layers = output["hidden_states"]
                changed["hidden_states"] = (embedded, *map(with_rows, layers))
            return type(output)(**{**output, **changed})

        return add

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        return replace(self, residuals={name: weight * each for name, each in self.residuals.items()})

    def with_ids(self, tokens: set[str], ids_of: Callable[[str, list[str]], tuple[int, ...]]) -> Part:
        words = self.words.split()
        return replace(self, ids={name: ids_of(name, words) for name in self.ids}) if set(words) <= tokens else self


@dataclass(frozen=True, eq=False)
class ParallelAdapter(_OnOutput):
    """A bottleneck beside a module: output + scale x up(activation(down(input))), a parallel adapter (arXiv 2110.04366).

    Attributes:
        down: Module name to its first matrix, shape (rank, in).
        up: Module name to its second matrix, shape (out, rank).
        scale: Of the whole branch.
        activation: ``identity``, ``relu`` or ``gelu``.

    Example:
        >>> ParallelAdapter({"unet.mid": torch.ones(1, 4)}, {"unet.mid": torch.zeros(4, 1)}).modules()
        ('unet.mid',)
    """

    kind: ClassVar[str] = "insertion"
    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    scale: float = 1.0
    activation: str = "identity"

    def __post_init__(self) -> None:
        down, up = _checked(self.down, 2, "insertion down"), _checked(self.up, 2, "insertion up")
        if self.activation not in ACTIVATIONS or not _is_finite(self.scale):
            expected = f"one of {', '.join(ACTIVATIONS)} and a finite scale"
            raise EditError(f"insertion: expected {expected}, found {self.activation!r} and {self.scale}")
        for name in down.keys() | up.keys():
            if name not in down or name not in up or down[name].shape[0] != up[name].shape[1]:
                raise EditError(
                    f"insertion: {name}: expected matrices (rank, in) and (out, rank), found others or only one"
                )
            if down[name].dtype != up[name].dtype:
                raise EditError(f"insertion: {name}: expected both matrices at one precision, found two")
        object.__setattr__(self, "down", down)
        object.__setattr__(self, "up", up)
        object.__setattr__(self, "scale", float(self.scale))

    def modules(self) -> tuple[str, ...]:
        """What it hooks."""
        return tuple(self.down)

    def hook(self, name: str, weight: float) -> Hook:
        """The output with the branch added."""
        down, up, activation = self.down[name], self.up[name], ACTIVATIONS[self.activation]

        def add(module: Any, given: Mapping[str, Any], output: Any) -> Any:
            entered = next(iter(given.values()))
            branch = (
                activation(entered @ down.to(entered).mT) @ up.to(entered).mT
            )  # (..., in) -> (..., rank) -> (..., out)
            first = output if isinstance(output, Tensor) else output[0]
            return replaced(output, first + weight * self.scale * branch)

        return add

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        return replace(self, scale=weight * self.scale)

    def restricted(self, keep: Callable[[str], bool], outside: Mapping[str, Positions]) -> Sequence[Part]:
        down, up = ({name: each[name] for name in each if keep(name)} for each in (self.down, self.up))
        return (replace(self, down=down, up=up),)


@dataclass(frozen=True, eq=False)
class SteeringVector(_OnOutput):
    """What is added to a module's output everywhere: a latent direction (of a GAN's mapping network, of a UNet's middle).

    Attributes:
        vectors: Module name to what is added; it must broadcast to the output without the batch axis.

    Example:
        >>> SteeringVector({"mapping": torch.ones(4)}).modules()
        ('mapping',)
    """

    kind: ClassVar[str] = "direction"
    vectors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", _checked(self.vectors, None, "direction"))

    def modules(self) -> tuple[str, ...]:
        """What it hooks."""
        return tuple(self.vectors)

    def hook(self, name: str, weight: float) -> Hook:
        """The output with the vector added."""
        vector = self.vectors[name]

        def add(module: Any, given: Mapping[str, Any], output: Any) -> Any:
            first = output if isinstance(output, Tensor) else output[0]
            return replaced(output, first + weight * vector.to(first))

        return add

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        return SteeringVector({name: weight * vector for name, vector in self.vectors.items()})

    def restricted(self, keep: Callable[[str], bool], outside: Mapping[str, Positions]) -> Sequence[Part]:
        return (SteeringVector({name: vector for name, vector in self.vectors.items() if keep(name)}),)


@dataclass(frozen=True, eq=False)
class InitialNoise(Part):
    """The noise that sampling starts from, in the place of the one a seed would draw.

    Attributes:
        noise: Of unit variance, shape (channels, height, width) of the latents.

    Example:
        >>> InitialNoise(torch.zeros(4, 16, 16)).blend(torch.ones(1, 4, 16, 16), 1.0).abs().max().item()
        0.0
    """

    kind: ClassVar[str] = "noise"
    noise: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", _checked({"noise": self.noise}, 3, "start noise")["noise"])

    def blend(self, drawn: Float[Tensor, "batch c h w"], weight: float) -> Float[Tensor, "batch c h w"]:
        """The drawn noise turned towards this one: cos x drawn + sin x noise keeps unit variance; exactly this one at weight 1.

        Args:
            drawn: What the seeds gave.
            weight: 0 to 1, as a share of a quarter turn.

        Raises:
            EditError: If the shapes differ or the weight lies outside 0 to 1.
        """
        if drawn.shape[1:] != self.noise.shape or not 0 <= weight <= 1:
            raise EditError(
                f"start noise: expected latents of shape {tuple(self.noise.shape)} and a weight from 0 to 1, found "
                f"{tuple(drawn.shape[1:])} and {weight}"
            )
        noise = self.noise.to(drawn).expand_as(drawn)  # (c, h, w) -> (batch, c, h, w)
        if weight in (0, 1):
            return noise.clone() if weight else drawn
        angle = torch.tensor(weight * torch.pi / 2)  # cos^2 + sin^2 = 1, so the variance stays
        return angle.cos() * drawn + angle.sin() * noise

    def weighted(self) -> tuple[str, ...]:
        return ("noise",)

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        raise EditError("start noise: a composed edit takes it whole; expected weight 1")


def replaced(output: Any, first: Tensor) -> Any:
    """The output with its first tensor replaced, whatever holds it."""
    if isinstance(output, Tensor):
        return first
    if isinstance(output, tuple):
        return type(output)(first, *output[1:]) if hasattr(output, "_fields") else (first, *output[1:])
    copied = type(output)(**output)  # a transformers or diffusers output: an ordered mapping of its fields
    copied[next(iter(output))] = first
    return copied
