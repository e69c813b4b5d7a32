"""Good seeds: start from noises that drew well for other prompts.

``photopic measure seeds`` ranks noises; its JSON is the ranking that this control reads, and it can be handed on like any file.
Picture after picture begins at one of the best, in turn by the seed that was asked for. Nothing is trained.

Paper: *Good Seed Makes a Good Crop: Discovering Secret Seeds in Text-to-Image Diffusion Models* (arXiv:2405.14828). Claims
``good_seed.*`` of benchmarks/generate/good_seeds.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Existing
from photopic.core.errors import DataError
from photopic.core.method import method
from photopic.core.sampling import Control, Sampling, standard_noise
from photopic.generate.guidance._common import read_ranking


@dataclass(frozen=True, kw_only=True)
class GoodSeedsConfig(Config):
    """Which of a ranking are used."""

    top: Annotated[int, Ge(0)] = 100  # the best so many; 0 leaves every picture the noise of its own seed
    worst: bool = False  # take them from the other end: for comparison


@method(
    paper="arXiv:2405.14828",
    claims="good_seed.",
    examples=("Example: photopic generate 'a fox' -n 8 --control good_seeds:ranking=seeds.json,top=8",),
)
class GoodSeeds(Control):
    """Draw from start noises that a ranking calls good; the picture of seed s takes the (s mod top)-th best.

    Args:
        ranking: JSON of photopic measure seeds --json, best first.
        config: Which of them.

    Raises:
        DataError: If the file is no such ranking, or holds fewer seeds than are asked for.

    Example:
        >>> model.generate("a fox", seeds=range(8), controls=[GoodSeeds("seeds.json")])  # doctest: +SKIP
    """

    def __init__(self, ranking: Annotated[str, Existing()], *, config: GoodSeedsConfig = GoodSeedsConfig()):
        seeds = read_ranking(ranking)
        if len(seeds) < config.top:
            raise DataError(f"{Path(ranking).name}: expected {config.top} seeds or more, found {len(seeds)}; lower top")
        self.seeds = (seeds[::-1] if config.worst else seeds)[: config.top]

    def start_noise(self, noise: Float[Tensor, "batch c h w"], sampling: Sampling) -> Float[Tensor, "batch c h w"]:
        """The noises of the chosen seeds, as those seeds would draw them."""
        if not self.seeds:
            return noise
        asked = [generator.initial_seed() for generator in sampling.generators]
        chosen = [torch.Generator().manual_seed(self.seeds[seed % len(self.seeds)]) for seed in asked]
        return standard_noise(chosen, noise)
