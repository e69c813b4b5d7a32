"""What the oracle says of pictures, as tensors, and the pictures as it reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.pixels import from_pixels
from photopic.metrics.oracle_network import pool

Images = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]  # uint8 (n, h, w, 3) or float (n, 3, h, w); ``score`` checks
FULL = 2.0  # cells of objects in a 3x3 window that count as a whole one: a thin small object covers two


@dataclass(frozen=True)
class Scores:
    """Everything the oracle says of n pictures in cells of 8x8 pixels; the other methods are questions about it."""

    cells: Float[Tensor, "n 128 rows rows"]  # embedding of each cell, of length 1; 8 rows at 64 pixels, 16 at 128
    foreground: Float[Tensor, "n rows rows"]  # probability that an object is in the cell
    coarse_cells: Float[Tensor, "n 128 half half"]  # of the picture at half its size, where large objects are read best
    coarse_foreground: Float[Tensor, "n half half"]
    moments: Float[Tensor, "n moments rows rows"]  # what style and tint are read from
    top: Float[Tensor, "n colours"]  # probability of the background's (top) colour
    bottom: Float[Tensor, "n colours"]  # of the bottom colour; the top one's where there is no gradient
    kind: Float[Tensor, "n kinds"]  # probability of the background's kind

    @property
    def embedding(self) -> Float[Tensor, "n 128"]:
        """Embedding of the objects of each picture: cells weighed by foreground, so the background does not count."""
        fine, coarse = pool(self.cells, self.foreground), pool(self.coarse_cells, self.coarse_foreground)
        return F.normalize(F.normalize(fine, dim=1) + F.normalize(coarse, dim=1), dim=1)


def window(
    cells: Float[Tensor, "n 128 rows columns"], foreground: Float[Tensor, "n rows columns"]
) -> tuple[Float[Tensor, "n rows columns 128"], Float[Tensor, "n rows columns"]]:
    """Embedding of the objects in the 3x3 cells around each cell, and how nearly they fill ``FULL`` cells."""
    embedding = F.normalize(F.avg_pool2d(cells * foreground[:, None], 3, 1, 1), dim=1).permute(0, 2, 3, 1)
    mass = 9 * F.avg_pool2d(foreground[:, None], 3, 1, 1)[:, 0]
    return embedding, (mass / FULL).clamp(max=1)


def prepared(images: Images, side: int) -> Float[Tensor, "n 3 side side"]:
    """Pictures as a network that learnt from that many pixels a side reads them."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3:
        tensor = from_pixels(np.ascontiguousarray(images))
    elif isinstance(images, Tensor) and images.is_floating_point() and images.ndim == 4 and images.shape[1] == 3:
        tensor = images.detach().float()
    else:
        raise DataError(
            "expected pictures as uint8 (n, h, w, 3) or float (n, 3, h, w) in -1 to 1, found "
            f"{getattr(images, 'dtype', type(images).__name__)} {tuple(getattr(images, 'shape', ()))}"
        )
    if not len(tensor):
        raise DataError("expected at least one picture, found none")
    if tensor.shape[2:] != (side, side):
        tensor = F.interpolate(tensor, (side, side), mode="bilinear", antialias=True).clamp(-1, 1)
    return tensor.contiguous(memory_format=torch.channels_last)
