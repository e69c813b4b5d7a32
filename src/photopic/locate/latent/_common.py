"""What ways to a generator's directions share: Gram matrices of a region and the rest, directions of w, an edit of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.config import Config
from photopic.core.edits import Edit, SteeringVector
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.nn.gram import gram_matrices
from photopic.core.view import Section, Table, View
from photopic.metrics.locality import check_frozen
from photopic.models.generator import Generator

SHOWN = 8  # directions in tables
NEGLIGIBLE = 0.1  # of a unit row: what a projection leaves of it below this is rounding blown up


@dataclass(frozen=True, kw_only=True)
class DirectionConfig(Config):
    """Which direction, of which pictures, and how far weight 1 goes."""

    direction: Annotated[int, Ge(1)] = 1  # which of the directions, strongest first
    step: Annotated[float, Gt(0)] = (
        1.0  # how far the edit goes at weight 1, in units of the length of the standard deviations of w
    )
    layers: tuple[Annotated[int, Ge(0)], ...] = ()  # style layers that are moved, from 0; none given: all of them
    codes: Annotated[int, Ge(1)] = (
        1  # pictures whose derivatives are averaged: more is less exact for one, and truer of others
    )
    truncation: Annotated[float, Gt(0), Le(1)] = 1.0  # how far the pictures looked into lie from the mean one
    seed: Annotated[int, Ge(0)] = 0  # seed of the pictures that are looked into


class Grams(NamedTuple):
    """Mean products of derivatives by w.

    Attributes:
        inside: M_f = J_f^T J_f / n_f, of the region's pixels and channels.
        outside: M_b, of the rest.
        w: Where they were taken.
    """

    inside: Float[np.ndarray, "d d"]
    outside: Float[np.ndarray, "d d"]
    w: Float[Tensor, "codes d"]


class Directions(NamedTuple):
    """Unit directions of w.

    Attributes:
        vectors: Rows of length 1.
        keep: What a projection left of each before it was made a unit again, 0 to 1; 1 where nothing was projected.
    """

    vectors: Float[np.ndarray, "r d"]
    keep: Float[np.ndarray, " r"]


def grams_at(
    model: Generator,
    w: Float[Tensor, "codes d"],
    mask: Bool[np.ndarray, "size size"],
    *,
    mean_channels: bool = False,
    block: int | None = None,
) -> Steps[Grams]:
    """Gram matrices of a region and of the rest at some w, averaged; the noise is the stored one.

    Args:
        model: A generator that draws the same picture of a w each time.
        w: One row a picture.
        mask: The region.
        mean_channels: See ``gram_matrices``, as ``block``.
        block: Columns held.

    Raises:
        ModelError: If the generator draws two pictures of one w: noise is drawn anew.
    """
    check_frozen(model, w[:1])
    inside = torch.from_numpy(mask).to(w.device)
    masks, areas = torch.stack([inside, ~inside]), torch.stack([inside.sum(), (~inside).sum()]).double().cpu()
    channels = 1 if mean_channels else 3
    found = torch.zeros(2, w.shape[1], w.shape[1], dtype=torch.float64)
    for index, each in enumerate(w):
        yield Event("differentiating", index, len(w))
        found += gram_matrices(
            lambda moved: model.synthesize(moved[None])[0], each, masks, mean_channels=mean_channels, block=block
        )
    inner, outer = (found / (len(w) * channels * areas[:, None, None])).numpy()
    return Grams(inner, outer, w)


def codes_of(model: Generator, config: DirectionConfig) -> Float[Tensor, "codes d"]:
    """The w of the pictures that are looked into."""
    with torch.no_grad():
        return model.map(model.sample_z(config.codes, config.seed), truncation=config.truncation)


def linear_ratio(direction: Float[np.ndarray, " d"], grams: Grams) -> float:
    """rho(p) = p' M_f p / p' M_b p: the change inside over the change outside of a vanishing step, both by area."""
    return float(direction @ grams.inside @ direction / (direction @ grams.outside @ direction))


def facts_of(directions: Directions, grams: Grams) -> dict[str, Any]:
    """The table of directions, for provenance; ``inside`` is the change inside over the largest that any direction makes there."""
    largest = float(np.linalg.eigvalsh(grams.inside)[-1])
    return {
        "directions": [
            {
                "keep": round(float(keep), 4),
                "inside": round(float(row @ grams.inside @ row) / largest, 4),
                "ratio": round(linear_ratio(row, grams), 2),
            }
            for row, keep in zip(directions.vectors[:SHOWN], directions.keep[:SHOWN], strict=False)
        ]
    }


def direction_edit(
    model: Generator, directions: Directions, config: DirectionConfig, mask: Bool[np.ndarray, "h w"] | None, facts: Any
) -> Edit:
    """One direction as an edit of w in the layers asked for.

    Raises:
        DataError: If there are fewer directions, or no such layer.
    """
    if len(directions.vectors) < config.direction:
        raise DataError(f"direction: expected 1 to {len(directions.vectors)}, found {config.direction}")
    count = model.layers
    if any(layer >= count for layer in config.layers):
        raise DataError(f"layers: expected 0 to {count - 1}, found {max(config.layers)}")
    row = torch.from_numpy(directions.vectors[config.direction - 1].copy()).float()
    vector = config.step * float(model.std_w.norm()) * row
    part = SteeringVector({name: vector for name in names_of(config.layers)})
    where = {} if mask is None else {"region": round(float(mask.mean()), 4)}
    shown = {"direction": config.direction, "step": config.step, "layers": list(config.layers), **where, **facts}
    return Edit((part,), model.fingerprint(), shown)


def names_of(layers: Sequence[int]) -> list[str]:
    """The modules whose output is moved: the mapping for all layers, else one a layer.

    Example:
        >>> names_of(()), names_of((4, 5))
        (['mapping'], ['synthesis.style.4', 'synthesis.style.5'])
    """
    return [f"synthesis.style.{layer}" for layer in layers] or ["mapping"]


def directions_view(edit: Edit) -> View:
    """The directions that there were."""
    rows = [
        [number, f"{each['ratio']:.1f}", f"{each['inside']:.1%}", f"{each['keep']:.2f}"]
        for number, each in enumerate(edit.provenance["directions"], 1)
    ]
    head = ["direction", "inside over outside", "of the largest change inside", "kept"]
    chosen = edit.provenance["direction"]
    return View(f"Direction {chosen}", [Section("", [Table(head, rows, "A vanishing step, changes by area")])])
