"""One picture with a mask for each thing in it: what several subjects are taught from at once.

    {"picture": "shelf.png", "regions": [{"words": "<one> bear", "box": [0.0, 0.2, 0.5, 1.0]},
                                         {"words": "<two> teapot", "mask": "teapot-mask.png"},
                                         {"words": "<three> cactus", "alpha": "cactus-cut-out.png"}]}

A layout file with a picture: boxes, painted masks, cut-outs (inside where they are opaque) or one picture painted in colours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.folder import load_picture
from photopic.data.layout import HALF, Layout, Region
from photopic.data.layout_file import read_stated
from photopic.data.picture_file import read_picture
from photopic.data.pixels import from_pixels


@dataclass(frozen=True, eq=False)
class MaskedPicture:
    """A picture with a region for each thing that is to be learnt.

    Attributes:
        image: RGB in -1 to 1, (3, size, size).
        layout: What is where in it; the words of a region are a new word and a noun, such as ``<one> bear``.

    Example:
        >>> import torch
        >>> bear = Region("<one> bear", (0.0, 0.0, 0.5, 1.0))
        >>> MaskedPicture(torch.zeros(3, 64, 64), Layout((bear,))).digest()[:8]
        'a1bca1f6'
    """

    image: Float[Tensor, "3 size size"]
    layout: Layout

    def digest(self) -> str:
        """Hex sha256 of the pixels and of every region's words and cells."""
        size = self.image.shape[-1]
        hasher = hashlib.sha256(self.image.detach().cpu().contiguous().float().numpy().tobytes())
        for region in self.layout.regions:
            hasher.update(region.words.encode() + region.coverage(size, size).astype(np.float32).tobytes())
        return hasher.hexdigest()


def read_masked_picture(path: str | Path, size: int) -> MaskedPicture:
    """Read a layout file that names its picture; the picture and its masks become their central square.

    Args:
        path: A JSON file, see the module; pictures are named relative to it.
        size: Side in pixels that the picture becomes.

    Raises:
        DataError: Names the file, what was expected, what was found and the fix.

    Example:
        >>> read_masked_picture("shelf.json", 64).layout.regions[0].words  # doctest: +SKIP
        '<one> bear'
    """
    path = Path(path)
    picture, layout = read_stated(path, picture=True)
    assert picture is not None
    width, height = read_picture(picture).size
    regions = []
    for region in layout.regions:
        mask = _square(region.coverage(height, width) >= HALF)
        if not mask.any():
            raise DataError(
                f"{path}: region {region.words!r} lies outside the central square of {picture.name}; crop it"
            )
        regions.append(Region(region.words, mask=mask))
    image = from_pixels(np.stack([load_picture(picture, size)]))[0]  # (size, size, 3) -> (3, size, size)
    return MaskedPicture(image, replace(layout, regions=tuple(regions)))


def _square(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "side side"]:
    """The central square, as pictures are cropped."""
    side = min(mask.shape)
    top, left = ((length - side) // 2 for length in mask.shape)
    return mask[top : top + side, left : left + side]
