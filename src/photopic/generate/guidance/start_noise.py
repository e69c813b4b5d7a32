"""One start noise of a ranking as an edit: a good seed that is saved, shared and turned towards by degrees.

Paper: *Good Seed Makes a Good Crop: Discovering Secret Seeds in Text-to-Image Diffusion Models* (arXiv:2405.14828). Changed: the
noise itself is stored, so that it means the same on every device. Claims ``good_seed.*`` of benchmarks/generate/good_seeds.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge

from photopic.core.config import Config, Existing, Flags
from photopic.core.edits import Edit, InitialNoise
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.sampling import standard_noise
from photopic.generate.guidance._common import read_ranking
from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True, kw_only=True)
class StartNoiseConfig(Config):
    """Which noise."""

    place: Annotated[int, Ge(1)] = 1  # its place in the ranking; 1 is the best


@method(
    paper="arXiv:2405.14828",
    claims="good_seed.",
    command="edit seed",
    examples=(
        "Example: photopic edit seed seeds.json -o best.edit",
        "Every picture turned half way to it: photopic generate 'a fox' --with best.edit --weight 0.5 -n 8 -o out/",
    ),
)
def start_noise(
    ranking: Annotated[str, Flags("RANKING"), Existing()],
    model: TextToImage,
    *,
    config: StartNoiseConfig = StartNoiseConfig(),
) -> Steps[Edit]:
    """Make an edit of one start noise of a ranking: with it every picture begins there, whatever its seed.

    At a weight below 1 the seed's own noise is turned towards it by that share of a quarter turn. The noise is that of the model's
    own picture size; other sizes are refused when pictures are drawn.

    Args:
        ranking: JSON of photopic measure seeds --json, best first.
        model: A bundled model, a folder with a diffusers pipeline that has a UNet, or a hub id.
        config: Which noise.

    Returns:
        One part, the noise; no weight changes.

    Raises:
        DataError: If the file is no such ranking, or is shorter.
        ModelError: If the model has no UNet.

    Example:
        >>> best = start_noise("seeds.json", model)  # doctest: +SKIP
        >>> with model.edits.applied(best, weight=0.5):  # doctest: +SKIP
        ...     model.generate("a fox", seeds=range(8))
    """
    seeds = read_ranking(ranking)
    if len(seeds) < config.place:
        raise DataError(f"{Path(ranking).name}: expected {config.place} seeds or more, found {len(seeds)}; lower place")
    model.check_unet("whose noise has no one size")
    yield Event("drawing")
    seed, pipeline = seeds[config.place - 1], model.pipeline
    side = model.image_size // pipeline.vae_scale_factor
    like = torch.empty(1, pipeline.vae.config.latent_channels, side, side)
    noise = standard_noise([torch.Generator().manual_seed(seed)], like)[0]  # (c, h, w)
    return Edit((InitialNoise(noise),), model.fingerprint(), {"seed": seed, "place": config.place})
