"""Sliders for one region: directions of a generator's latent space that change the region most and the rest, to first order, not
at all.

The Gram matrices of the picture's Jacobian inside and outside the region are split into low rank and sparse; what the low rank
part of the region says is projected on the null space of that of the rest.

Paper: *Low-Rank Subspaces in GANs* (NeurIPS 2021, arXiv:2106.04488). Changed: Jacobians by forward mode and never stored; all
three channels; the weight of the sparse part follows the matrix, because 1/60 lies below what leaves anything of low rank at 64
dimensions; robust PCA goes on until its multiplier settles. ``keep`` says how much of a direction the projection left, and a
direction that loses nearly all is refused. ``preset="paper"`` is the released rule. Claims ``gan.low_rank.*`` of
benchmarks/locate/latent_directions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.numerics.robust_pca import robust_pca, smallest_weight
from photopic.data.picture_region import region_mask
from photopic.locate.latent._common import (
    NEGLIGIBLE,
    SHOWN,
    DirectionConfig,
    Directions,
    Grams,
    codes_of,
    direction_edit,
    directions_view,
    facts_of,
    grams_at,
)
from photopic.models.generator import Generator

Split = Literal["rpca", "energy", "fixed"]
STRENGTH = 2.0  # of the smallest weight at which robust PCA leaves anything
ENERGY = 0.99  # of a matrix's trace in the directions that are kept, with split energy


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(DirectionConfig):
    """How directions are found."""

    split: Split = "rpca"  # what is of low rank: by robust PCA, by 99 % of the energy, or the first quarter (fixed)
    sparse_weight: Annotated[float | None, Gt(0)] = (
        None  # lambda of robust PCA; without: twice the smallest that leaves low rank
    )
    relax: Annotated[int, Ge(0)] = 0  # weakest directions of the rest that may be moved after all
    min_keep: Annotated[float, Ge(0), Le(1)] = (
        0.2  # share of a direction that the projection must leave, else it is refused
    )
    mean_channels: bool = False  # look at the mean of the colour channels only, as published
    released: bool = False  # robust PCA as the released code has it: its penalty, and it stops before the optimum


class Subspaces(NamedTuple):
    """Directions, and the ranks behind them.

    Attributes:
        directions: Projected, strongest first by what they were before.
        inside: Rank of the region's low rank part.
        outside: Rank of that of the rest.
        removed: Directions of the rest that were projected out.
    """

    directions: Directions
    inside: int
    outside: int
    removed: int


PAPER = LowRankConfig(sparse_weight=1 / 60, mean_channels=True, released=True, codes=1, seed=4, min_keep=0.0)


@method(
    paper="arXiv:2106.04488",
    claims="gan.low_rank. gan.jacobian_vs_reverse gan.rpca_vs_released",
    presets={"paper": PAPER},
    command="locate low-rank",
    examples=(
        "Example: photopic locate low-rank --region 0.2,0.3,0.8,0.5 -o eyes.edit",
        "A painted region: photopic locate low-rank --region mask.png -o mouth.edit",
    ),
    view=directions_view,
    after=("next: photopic measure locality {output} --region ... -o locality.html",),
)
def low_rank(
    model: Generator,
    *,
    region: Annotated[str, Flags("--region")],
    config: LowRankConfig = LowRankConfig(),
) -> Steps[Edit]:
    """Find a direction of a generator's latent space that changes one region of the picture and little else.

    Args:
        model: A generator: a bundled name, or a folder. Its noise is the stored one.
        region: left,top,right,bottom as fractions of the picture, or a mask picture that is light inside.
        config: How to find it.

    Returns:
        One steering vector of w. Provenance holds ``directions``: of each ``ratio`` (change inside over outside of a vanishing
        step, by area), ``inside`` (its change there over the largest possible) and ``keep``; and ``ranks``.

    Raises:
        DataError: If the region is empty or the whole picture, robust PCA would leave nothing, or nothing local is there.
        ModelError: If random noise is on.

    Example:
        >>> edit = low_rank(model, region="0.2,0.3,0.8,0.5")  # doctest: +SKIP
        >>> edit.provenance["directions"][0]["keep"]  # doctest: +SKIP
        0.91
    """
    mask = region_mask(region, model.resolution)
    grams = yield from grams_at(model, codes_of(model, config), mask, mean_channels=config.mean_channels)
    yield Event("splitting")
    found = subspaces(grams, config)
    keep = found.directions.keep
    facts = facts_of(found.directions, grams) | {"ranks": [found.inside, found.outside, found.removed]}
    if (len(keep) >= config.direction and keep[config.direction - 1] < config.min_keep) or not len(keep):
        others = [f"{k + 1} ({each:.2f})" for k, each in enumerate(keep[:SHOWN]) if each >= config.min_keep]
        said = f"directions that keep more: {', '.join(others)}" if others else "and so is every other"
        kept = f"{keep[config.direction - 1]:.2f}" if len(keep) >= config.direction else "none"
        raise DataError(
            f"region {region}: nothing local here: what moves it moves the rest; of direction {config.direction} the projection "
            f"keeps {kept}, below {config.min_keep}; {said}"
        )
    return direction_edit(model, found.directions, config, mask, facts)


def subspaces(
    grams: Grams,
    config: LowRankConfig = LowRankConfig(),
    *,
    negligible: float = NEGLIGIBLE,
) -> Subspaces:
    """The directions of a region from its Gram matrix and that of the rest; those that keep less than ``negligible`` are left out.

    Raises:
        DataError: If the weight is one at which robust PCA leaves nothing of low rank, by its certificate.

    Example:
        >>> one, other = np.diag([9.0, 1.0, 0.1, 0.1]), np.diag([0.1, 0.1, 1.0, 9.0])
        >>> found = subspaces(Grams(one, other, None), LowRankConfig(split="fixed"))
        >>> found.directions.vectors.tolist(), found.directions.keep.tolist()
        ([[1.0, 0.0, 0.0, 0.0]], [1.0])
    """
    (inner, inside), (outer, outside) = (_principal(each, config) for each in (grams.inside, grams.outside))
    d = len(grams.inside)
    removed = min(max(1, outside - config.relax), d - 1)  # k of the paper
    away = outer[:removed]  # B_1, (k, d)
    rows = inner[:inside]
    projected = rows - rows @ away.T @ away  # (I - B_1 B_1^T) f = B_null B_null^T f
    keep = np.linalg.norm(projected, axis=1)
    kept = keep >= negligible
    return Subspaces(Directions(projected[kept] / keep[kept, None], keep[kept]), inside, outside, removed)


def _principal(matrix: Float[np.ndarray, "d d"], config: LowRankConfig) -> tuple[Float[np.ndarray, "d d"], int]:
    """Rows in the order of their strength in the low rank part, and how many of them it has."""
    if config.split != "rpca":
        values, vectors = np.linalg.eigh(matrix)
        values, rows = values[::-1], vectors[:, ::-1].T
        share = np.cumsum(values) / values.sum()
        return rows, max(1, len(rows) // 4) if config.split == "fixed" else int((share < ENERGY).sum()) + 1
    least = smallest_weight(matrix)
    weight = config.sparse_weight or STRENGTH * least
    if weight <= least and not config.released:
        raise DataError(
            f"--sparse-weight: expected more than {least:.4g}, below which robust PCA leaves nothing, found {weight:.4g}"
        )
    split = robust_pca(
        matrix, weight, penalty="released" if config.released else "textbook", dual_test=not config.released
    )
    return split.vectors, split.rank
