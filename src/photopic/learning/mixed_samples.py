"""Batches of mixed pictures with mixed labels: FMix, CutMix and MixUp, each as a function of a batch and a generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.numerics.spectral_noise import power_gain, spectral_noise, strongest

Mixing: TypeAlias = Literal["fmix", "cutmix", "mixup", "none"]


class Mixed(NamedTuple):
    """A batch after mixing.

    Attributes:
        pixels: ``share`` of each picture, the rest of its partner.
        partners: Which picture of the batch each was mixed with.
        share: Of the first, the same for all.
    """

    pixels: Float[Tensor, "n channels height width"]
    partners: Int64[Tensor, " n"]
    share: float

    def loss(self, logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
        """Cross-entropy with both labels by their shares."""
        partly = [F.cross_entropy(logits, each) for each in (labels, labels[self.partners])]
        return self.share * partly[0] + (1 - self.share) * partly[1]


def mixed(
    pixels: Float[Tensor, "n channels height width"],
    mixing: Mixing,
    rng: np.random.Generator,
    *,
    alpha: float,
    decay: float,
) -> Mixed:
    """Mix each picture of a batch with another one of it.

    Args:
        pixels: Of the batch.
        mixing: FMix (arXiv:2002.12047), CutMix (arXiv:1905.04899), MixUp (arXiv:1710.09412), or none.
        rng: For the share, the partners and the mask.
        alpha: The share is drawn from Beta(alpha, alpha).
        decay: Of FMix's amplitudes with frequency.

    Example:
        >>> mixed(torch.zeros(4, 3, 8, 8), "none", np.random.default_rng(0), alpha=1.0, decay=3.0).share
        1.0
    """
    if mixing == "none":
        return Mixed(pixels, torch.arange(len(pixels), device=pixels.device), 1.0)
    share = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(pixels))).to(pixels.device)
    if mixing == "mixup":
        return Mixed(share * pixels + (1 - share) * pixels[partners], partners, share)
    sides = pixels.shape[2:]
    mask = fmix_mask(sides, share, decay, rng) if mixing == "fmix" else ~cutmix_box(sides, 1 - share, rng)
    kept = torch.from_numpy(mask).to(pixels.device)  # (height, width): the same for all pictures
    return Mixed(torch.where(kept, pixels, pixels[partners]), partners, float(mask.mean()))


def fmix_mask(shape: Sequence[int], share: float, decay: float, rng: np.random.Generator) -> Bool[np.ndarray, "..."]:
    """Where a grey image of low frequencies is largest: of so many samples that the mean is the share to within one.

    Args:
        shape: In one, two or three dimensions.
        share: Of the mask, 0 to 1.
        decay: The image is the inverse transform of complex Gaussian noise over f^decay.
        rng: For image and rounding.

    Example:
        >>> float(fmix_mask((8, 8), 0.25, 3.0, np.random.default_rng(0)).mean())
        0.25
    """
    grey = spectral_noise(shape, power_gain(decay, max(shape)), rng)
    count = int(share * grey.size + rng.random())  # up or down so that the mean over many draws is exact
    return strongest(grey.ravel(), count).reshape(grey.shape)


def cutmix_box(sides: Sequence[int], share: float, rng: np.random.Generator) -> Bool[np.ndarray, "height width"]:
    """A box of the picture's shape around a random point, of a share of the area before it is cut off at the borders."""
    box = np.zeros(tuple(sides), bool)
    ranges = []
    for side in sides:
        middle, half = rng.integers(side), int(side * np.sqrt(share)) // 2
        ranges.append(slice(max(0, middle - half), middle + half))
    box[tuple(ranges)] = True
    return box
