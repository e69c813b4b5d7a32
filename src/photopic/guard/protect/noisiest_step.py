"""Protection against inpainting: a small change of what is kept of a picture sends an inpainting model's first step astray.

The change makes the network's output at the noisiest step as large as it can, where the course of the whole picture is set. The
region that is kept is shrunk at random in every step, because nobody knows the mask that an editor will use.

Paper: DiffusionGuard (ICLR 2025, arXiv:2410.05694). Changed: the norm is of the network's output. With a velocity and no signal
left at the noisiest step the implied noise is the input whatever the picture, and has no gradient. Claims ``diffusionguard.*`` of
benchmarks/guard/inpainting_protection.py; exact facts in tests/guard/protect/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.sampling import standard_noise
from photopic.data.folder import load_mask
from photopic.data.picture_file import open_picture
from photopic.data.pixels import as_mask
from photopic.guard.protect._common import (
    BallConfig,
    Levels,
    as_model_reads,
    ascended,
    places_for,
    read_pictures,
    seeded,
    signal_to_noise,
    write_png,
)
from photopic.models.text_to_image.autoencoder import latents_of
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.inpainter import Inpainter


@dataclass(frozen=True, kw_only=True)
class InpaintingProtectionConfig(BallConfig):
    """How to protect."""

    shrink: Annotated[float, Ge(0), Lt(1)] = (
        0.5  # how deep the contour of what is kept may move inwards in a step; 0: never
    )


@method(
    paper="arXiv:2410.05694",
    claims="diffusionguard.",
    presets={"paper": InpaintingProtectionConfig(steps=800, step_size=1.0)},
    command="guard protect-inpainting",
    examples=("Example: photopic guard protect-inpainting me.png --mask around-me.png -o protected.png",),
    page=False,
)
def protect_inpainting(
    model: Annotated[TextToImage, Flags("--model", default="emoji-inpainting")],
    picture: Annotated[str, Flags("PICTURE"), Existing()],
    *,
    mask: Annotated[str, Existing()],
    output: Annotated[str, Flags("--output", "-o", "--out")],
    overwrite: bool = False,
    config: InpaintingProtectionConfig = InpaintingProtectionConfig(),
) -> Steps[Report]:
    """Change what matters of your picture a little, so that inpainting models draw badly around it.

    Args:
        model: An inpainting model whose network reads mask and masked picture: a bundled name, a folder of diffusers, or a hub id.
        picture: A picture of your own.
        mask: Light where an editor would draw, dark where the picture would be kept; only what is dark is changed.
        output: The PNG to write, or a folder for it.
        overwrite: Replace a picture that is there.
        config: How to protect.

    Returns:
        The largest change in levels of 255, and the distance to the picture in decibels.

    Raises:
        DataError: If the mask keeps nothing or differs in size, or something is there already.
        ModelError: If the model draws in masks without reading them: at the noisiest step its input shows nothing of the picture.

    Example:
        >>> protect_inpainting(model, "me.png", mask="mask.png", output="safe.png").values["largest_change"]  # doctest: +SKIP
        16
    """
    [(file, clean)] = read_pictures(picture).items()
    place = places_for([file], output, overwrite=overwrite)[0]
    kept = ~as_mask(open_picture(mask), mask)
    small = ~load_mask(mask, model.image_size, of=picture)
    if not small.any():
        raise DataError(
            f"{mask}: expected something dark, which is kept and protected, found none; paint only where to draw"
        )
    where = torch.from_numpy(kept)[None, None].float()
    changed = yield from protected_region(model, clean[None], small[None], [0], config, where)
    write_png(changed[0], place)
    largest = int(abs(clean.astype(int) - changed[0]).max())
    return Report(
        "protected", {"written": str(place), "largest_change": largest, "psnr_db": signal_to_noise(clean, changed[0])}
    )


def protected_region(
    model: TextToImage,
    pictures: UInt8[np.ndarray, "n h w 3"],
    kept: Bool[np.ndarray, "n size size"],
    numbers: Sequence[int],
    config: InpaintingProtectionConfig = InpaintingProtectionConfig(),
    where: Float[Tensor, "n 1 h w"] | None = None,
) -> Steps[UInt8[np.ndarray, "n h w 3"]]:
    """Protected pictures of one size.

    Args:
        model: An ``Inpainter``.
        pictures: RGB.
        kept: True where a picture would be kept, at the model's size.
        numbers: One a picture, of its noise.
        config: How to protect.
        where: 1 where pixels may change; ``kept`` by default, for pictures of the model's size.

    Raises:
        ModelError: If the model is no inpainting model.
    """
    if not isinstance(model, Inpainter):
        raise ModelError(
            f"{model.name}: expected an inpainting model, whose network reads the masked picture, found one that is given noise "
            "alone in its first step; load emoji-inpainting or another inpainting pipeline"
        )
    generators, size = seeded(config.seed, numbers), model.image_size
    rngs = [np.random.default_rng((config.seed, number)) for number in numbers]
    conditioning = model.encode_prompts([""] * len(pictures))
    noisiest = torch.full((len(pictures),), model.timesteps - 1)

    def slope(levels: Levels, step: int) -> Levels:
        regions = np.stack([shrunk(*pair, config.shrink) for pair in zip(kept, rngs, strict=True)])
        drawn = 1 - torch.from_numpy(regions)[:, None].float()  # (n, 1, size, size)
        with torch.enable_grad():
            leaf = levels.detach().requires_grad_()
            grey, cells = model.known(as_model_reads(leaf, size), drawn)
            latents = latents_of(model.pipeline, grey)
            noise = standard_noise(generators, latents.detach())  # z_T: no signal is left, or hardly any
            given = torch.cat([noise, cells.to(latents), latents], 1)  # (n, 9, h2, w2)
            norms = model.predict(given, noisiest, conditioning).flatten(1).norm(dim=1)  # Eq. 6
            return torch.autograd.grad(norms.sum(), leaf)[0].cpu()

    allowed = torch.from_numpy(kept)[:, None].float() if where is None else where
    return ascended(pictures, slope, config, generators, allowed)


def shrunk(kept: Bool[np.ndarray, "h w"], rng: np.random.Generator, depth: float) -> Bool[np.ndarray, "h w"]:
    """A region whose contour has moved inwards, here more and there less, by at most a share of its largest depth.

    Example:
        >>> region = np.zeros((9, 9), bool)
        >>> region[1:8, 1:8] = True
        >>> smaller = shrunk(region, np.random.default_rng(0), 0.5)
        >>> bool((smaller <= region).all()), bool(smaller.any())
        (True, True)
    """
    if not depth or not kept.any():
        return kept
    inside = distance_transform_edt(kept)  # pixels to the contour
    coarse = torch.from_numpy(rng.random((1, 1, 4, 4)))
    field = F.interpolate(coarse, kept.shape, mode="bicubic").clamp(0, 1)[0, 0].numpy()  # smooth, 0 to 1
    return kept & (inside > depth * field * inside.max())
