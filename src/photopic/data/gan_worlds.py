"""Two procedural worlds of simple faces with true factors and exact masks: INDEP, all independent, and CORR, colours tied.

In CORR the colour of the eyes goes with the background's and the mouth's with the face's (correlation about 0.6), so that
a direction found in a generator may move both; whether an edit is local shows there, while in INDEP almost any direction is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.errors import DataError

TIED = 0.45  # share of another's colour in a tied one; correlation 0.45 / sqrt(0.45^2 + 0.55^2) = 0.63
RANGES = {  # factor: lowest and highest; lengths in half sides of the picture
    "x": (-0.12, 0.12), "y": (-0.12, 0.12), "radius": (0.6, 0.8), "eye_size": (0.08, 0.15), "eye_distance": (0.22, 0.32),
    "smile": (-0.15, 0.15), "mouth_width": (0.2, 0.36),
}  # fmt: skip
COLOURS = ("background", "face", "eyes", "mouth")
REGIONS = ("eyes", "mouth", "face", "background")


@dataclass(frozen=True)
class FaceScenes:
    """Faces with everything that is true about them.

    Attributes:
        pictures: -1 to 1.
        factors: Numbers (n,) by name in ``RANGES``, and colours (n, 3), -0.9 to 0.9, by name in ``COLOURS``.
        masks: By region of ``REGIONS``: pixels of which it covers more than half; disjoint, so the face's is without eyes
            and mouth.
    """

    pictures: Float[Tensor, "n 3 size size"]
    factors: Mapping[str, Tensor]
    masks: Mapping[str, Bool[Tensor, "n size size"]]


def faces(count: int, seed: int = 0, correlated: bool = False, size: int = 64) -> FaceScenes:
    """Draw faces; scene i of a seed is the same whatever the count, and has the same geometry in both worlds and at both sizes.

    Args:
        count: How many.
        seed: Of all of them.
        correlated: CORR instead of INDEP.
        size: Side of the pictures in pixels, 32 or 64.

    Raises:
        DataError: If none is asked for, or pictures of another size.

    Example:
        >>> found = faces(2, seed=0, size=32)
        >>> found.pictures.shape, sorted(found.masks)
        (torch.Size([2, 3, 32, 32]), ['background', 'eyes', 'face', 'mouth'])
    """
    if count < 1 or size not in (32, 64):
        raise DataError(f"expected 1 face or more of 32 or 64 pixels, found {count} of {size}")
    drawn = [np.random.default_rng((seed, index)) for index in range(count)]
    numbers = np.stack([rng.uniform(size=len(RANGES)) for rng in drawn])
    ends = np.array(list(RANGES.values()))
    values = torch.from_numpy(ends[:, 0] + numbers * (ends[:, 1] - ends[:, 0])).float()
    factors = dict(zip(RANGES, values.T, strict=True))
    own = torch.from_numpy(np.stack([rng.uniform(-0.9, 0.9, (6, 3)) for rng in drawn])).float()
    background, face, eyes, mouth = own[:, :4].unbind(1)
    beside_eyes, beside_mouth = (background, face) if correlated else own[:, 4:].unbind(1)  # the same marginals
    factors |= {
        "background": background,
        "face": face,
        "eyes": TIED * beside_eyes + (1 - TIED) * eyes,
        "mouth": TIED * beside_mouth + (1 - TIED) * mouth,
    }
    return _drawn(factors, size)


def _drawn(factors: Mapping[str, Tensor], size: int) -> FaceScenes:
    """Shapes over each other, with edges a pixel wide."""
    f = {name: factors[name][:, None, None] for name in RANGES}  # (n, 1, 1)
    places = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = places[None, None, :] - f["x"], places[None, :, None] - f["y"]  # (n, h, w)
    across = x.abs()
    eye = f["eye_size"] - ((across - f["eye_distance"]).square() + (y + 0.18).square()).sqrt()
    bend = y - 0.28 - f["smile"] * (1 - 2 * (x / f["mouth_width"]).square())
    inside = {  # distance to the edge, positive inside, in half sides of the picture
        "face": f["radius"] - (x.square() + y.square()).sqrt(),
        "eyes": eye,
        "mouth": torch.minimum(0.07 - bend.abs(), f["mouth_width"] - across),
    }
    covers = {name: (each * size / 2 + 0.5).clamp(0, 1) for name, each in inside.items()}
    picture = factors["background"][:, :, None, None].expand(-1, -1, size, size)
    masks, left = {}, torch.ones_like(covers["face"], dtype=torch.bool)
    for name in ("face", "eyes", "mouth"):
        picture = torch.lerp(picture, factors[name][:, :, None, None], covers[name][:, None])
    for name in ("mouth", "eyes", "face"):  # the uppermost first
        masks[name] = (covers[name] > 0.5) & left
        left = left & ~masks[name]
    masks["background"] = left
    return FaceScenes(picture.contiguous(), dict(factors), {name: masks[name] for name in REGIONS})
