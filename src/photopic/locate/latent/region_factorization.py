"""The directions that change a region most for what they change elsewhere: generalised eigenvectors of two Gram matrices.

Paper: *Region-Based Semantic Factorization in GANs* (ICML 2022, arXiv:2202.09649). Changed: a symmetric solver, where the
released one takes the real part of complex pairs; mean squares by area; forward mode. It is the exact optimum of the linearised
aim, and so the bound that ``low_rank`` is compared with. Claims ``gan.low_rank.*`` of benchmarks/locate/latent_directions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.events import Steps
from photopic.core.method import method
from photopic.data.picture_region import region_mask
from photopic.locate.latent._common import (
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


@dataclass(frozen=True, kw_only=True)
class RegionFactorizationConfig(DirectionConfig):
    """How directions are found."""

    ridge: Annotated[float, Gt(0)] = (
        1e-3  # added to the rest's matrix, as a share of its trace; more asks for stronger directions
    )


@method(
    paper="arXiv:2202.09649",
    claims="gan.low_rank.",
    command="locate region-factorization",
    examples=("Example: photopic locate region-factorization --region 0.2,0.3,0.8,0.5 -o eyes.edit",),
    view=directions_view,
)
def region_factorization(
    model: Generator,
    *,
    region: Annotated[str, Flags("--region")],
    config: RegionFactorizationConfig = RegionFactorizationConfig(),
) -> Steps[Edit]:
    """Find the direction whose first-order change inside a region is largest for its change outside.

    Args:
        model: A generator: a bundled name, or a folder. Its noise is the stored one.
        region: left,top,right,bottom as fractions of the picture, or a mask picture that is light inside.
        config: How to find it.

    Returns:
        One steering vector of w; provenance as of ``low_rank``, with keep 1.

    Raises:
        DataError: If the region is empty or the whole picture.
        ModelError: If random noise is on.

    Example:
        >>> region_factorization(model, region="0.2,0.3,0.8,0.5").provenance["directions"][0]["ratio"]  # doctest: +SKIP
        131.2
    """
    mask = region_mask(region, model.resolution)
    grams = yield from grams_at(model, codes_of(model, config), mask)
    found = factorized(grams, config.ridge)
    return direction_edit(model, found, config, mask, facts_of(found, grams))


def factorized(grams: Grams, ridge: float = 1e-3) -> Directions:
    """Solutions of M_f v = s (M_b + ridge trace(M_b) I) v, by falling s, as unit rows.

    Example:
        >>> factorized(Grams(np.diag([1.0, 4.0]), np.diag([1.0, 1.0]), None)).vectors.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    from scipy.linalg import eigh

    d = len(grams.outside)
    _, vectors = eigh(grams.inside, grams.outside + ridge * np.trace(grams.outside) * np.eye(d))
    rows = vectors.T[::-1]
    return Directions(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.ones(d))
