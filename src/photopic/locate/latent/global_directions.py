"""Directions of a generator's latent space that know of no region: those that w varies along, those that styles listen to, any.

Papers: *GANSpace: Discovering Interpretable GAN Controls* (arXiv:2004.02546), principal components of w; *Closed-Form
Factorization of Latent Semantics in GANs* (SeFa, arXiv:2007.06600), eigenvectors of the weights that make styles of w. Random
unit vectors stand beside
them: what a region's own directions have to beat. Claims ``gan.low_rank.*`` of benchmarks/locate/latent_directions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.view import Section, Text, View
from photopic.locate.latent._common import DirectionConfig, Directions, direction_edit
from photopic.models.generator import Generator

Kind = Literal["ganspace", "sefa", "random"]
SAMPLES = 4096  # of w, for its principal components


@dataclass(frozen=True, kw_only=True)
class GlobalDirectionsConfig(DirectionConfig):
    """Which direction."""

    kind: Kind = "ganspace"  # principal components of w, what the styles listen to most (sefa), or any at random


def _view(edit: Edit) -> View:
    return View(
        "One direction of w",
        [Section("", [Text(f"Number {edit.provenance['direction']}; measure locality tells what it moves.")])],
    )


@method(
    paper="arXiv:2004.02546 arXiv:2007.06600",
    claims="gan.low_rank.",
    command="locate global-directions",
    examples=("Example: photopic locate global-directions --kind sefa --direction 2 -o second.edit",),
    view=_view,
)
def global_directions(
    model: Generator,
    *,
    config: GlobalDirectionsConfig = GlobalDirectionsConfig(),
) -> Steps[Edit]:
    """A direction of a generator's latent space that was found without a region.

    Args:
        model: A generator: a bundled name, or a folder.
        config: Which direction.

    Returns:
        One steering vector of w.

    Raises:
        DataError: If there are fewer directions.

    Example:
        >>> global_directions(model).parts[0].kind  # doctest: +SKIP
        'direction'
    """
    yield Event("factorizing")
    return direction_edit(model, found_directions(model, config.kind, config.seed), config, None, {})


def found_directions(model: Generator, kind: Kind, seed: int = 0) -> Directions:
    """All directions of a kind, first the strongest."""
    d = model.config.w_width
    if kind == "random":
        rows = np.random.default_rng(seed).normal(size=(d, d))
        return Directions(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.ones(d))
    with torch.no_grad():
        if kind == "ganspace":
            w = model.map(model.sample_z(SAMPLES, seed)).double()
            matrix = torch.cov(w.T)
        else:
            affine = torch.cat(
                [each.affine.weight for each in (*model.synthesis.convs, *model.synthesis.to_rgb)]
            ).double()
            matrix = affine.T @ affine  # (channels of all layers, d) -> (d, d)
    vectors = np.linalg.eigh(matrix.cpu().numpy())[1]
    return Directions(vectors.T[::-1].copy(), np.ones(d))
