"""Entropy scaling: keep self-attention as sharp at other sizes as it was in training.

A softmax over more cells spreads out, over fewer it sharpens. Scores of self-attention are therefore multiplied by
``sqrt(log_T N)``, with N the cells of a layer at the size drawn and T those at the size the network was trained on. Nothing is
trained and no call is added.

Paper: *Training-free Diffusion Model Adaptation for Variable-Sized Text-to-Image Synthesis* (arXiv:2306.08645). Changed: T is that
of each layer, from the size in the network's configuration; queries are scaled, which is the same before the softmax. Claims
``entropy_scaling.*`` of benchmarks/generate/entropy_scaling.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config
from photopic.core.errors import ModelError
from photopic.core.method import method
from photopic.core.nn.attention import Place
from photopic.core.nn.attention.layers import Kind, plain
from photopic.core.sampling import Control, Sampling, Step


@dataclass(frozen=True, kw_only=True)
class EntropyScalingConfig(Config):
    """How far scores are scaled."""

    strength: Annotated[float, Ge(0), Le(4)] = 1.0  # exponent of the factor: 1 is the paper's, 0 changes nothing


@method(
    paper="arXiv:2306.08645",
    claims="entropy_scaling.",
    examples=("Example: photopic generate 'a bear on a red background' --width 128 --control entropy_scaling",),
)
class EntropyScaling(Control):
    """Draw pictures of another size than the model was trained on, with attention as sharp as it was there.

    Args:
        config: How far.

    Raises:
        ModelError: In a run, if the network does not say which size it was trained on.

    Example:
        >>> model.generate("a bear", seeds=[0], width=128, controls=[EntropyScaling()])  # doctest: +SKIP
    """

    kinds: tuple[Kind, ...] = ("self",)

    def __init__(self, *, config: EntropyScalingConfig = EntropyScalingConfig()):
        self.config = config

    def start(self, sampling: Sampling) -> None:
        """Read the trained size."""
        side = getattr(plain(sampling.unet).config, "sample_size", None)
        if side is None:
            raise ModelError(
                f"entropy scaling: expected sample_size in the configuration of {type(sampling.unet).__name__}, found none; set it"
            )
        self.trained: tuple[int, int] = (side, side) if isinstance(side, int) else tuple(side)

    def model_input(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """Remember the size drawn; the latents stay."""
        self.drawn = (latents.shape[-2], latents.shape[-1])
        return latents

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, place: Place, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Queries times the factor, (batch, heads, cells, head_dim); untouched where it is 1."""
        trained = cells_at(self.trained, self.drawn, place)
        factor = entropy_factor(place.height * place.width, trained) ** self.config.strength
        return query if factor == 1 else query * factor, key, value


def cells_at(trained: tuple[int, int], drawn: tuple[int, int], place: Place) -> int:
    """Cells that a layer has at the trained size: as many halvings, rounding up, as lead from the drawn size to its grid.

    Args:
        trained: Height and width of the latents in training.
        drawn: Of those drawn now.
        place: The layer, with its grid now.

    Example:
        >>> cells_at((16, 16), (16, 32), Place("up", 8, 16, heads=1))
        64
    """
    while drawn[0] * drawn[1] > place.height * place.width:
        drawn = (-(-drawn[0] // 2), -(-drawn[1] // 2))
        trained = (-(-trained[0] // 2), -(-trained[1] // 2))
    return trained[0] * trained[1]


def entropy_factor(cells: int, trained: int) -> float:
    """``sqrt(log_T N)``, by which scores over N cells are as sharp as over T; 1 where either is a single cell.

    Example:
        >>> entropy_factor(64, 64), round(entropy_factor(128, 64), 4)
        (1.0, 1.0801)
    """
    if cells == trained or min(cells, trained) < 2:
        return 1.0
    return math.sqrt(math.log(cells) / math.log(trained))


class EntropyMeter(Control):
    """Measures self-attention and changes nothing; give it after the controls whose effect is to be seen.

    Attributes:
        entropies: Of every layer by name, for each call the mean entropy of a cell's attention in nats.

    Example:
        >>> meter = EntropyMeter()
        >>> model.generate("a bear", seeds=[0], width=128, controls=[EntropyScaling(), meter])  # doctest: +SKIP
        >>> meter.mean  # doctest: +SKIP
        3.9
    """

    kinds: tuple[Kind, ...] = ("self",)

    def __init__(self) -> None:
        self.entropies: dict[str, list[float]] = {}

    def start(self, sampling: Any) -> None:
        """Forget the last run."""
        self.entropies = {}

    def attention(
        self, scores: Float[Tensor, "batch heads cells tokens"], place: Place, step: Step
    ) -> Float[Tensor, "batch heads cells tokens"]:
        """Read the probabilities that the scores lead to; the scores stay."""
        logs = scores.log_softmax(-1)
        entropy = -torch.xlogy(logs.exp(), logs.exp()).sum(-1).mean()
        self.entropies.setdefault(place.name, []).append(float(entropy))
        return scores

    @property
    def mean(self) -> float:
        """Over layers and calls, in nats."""
        each = [sum(found) / len(found) for found in self.entropies.values()]
        return sum(each) / len(each)
