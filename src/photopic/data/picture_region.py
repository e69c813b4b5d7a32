"""One region of a picture as a mask: a box in fractions, a painted mask, or an array; neither nothing nor the whole picture."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

from photopic.core.errors import DataError
from photopic.data.layout import HALF, Region
from photopic.data.picture_file import open_picture
from photopic.data.pixels import as_mask

PictureRegion: TypeAlias = str | Bool[np.ndarray, "height width"]


def region_mask(region: PictureRegion, size: int) -> Bool[np.ndarray, "size size"]:
    """The pixels of a region: those that it covers by half.

    Args:
        region: ``left,top,right,bottom`` as fractions of the picture from its top left, a picture that is light inside, or a mask
            of any size, which is stretched over the picture.
        size: Side of the picture in pixels.

    Raises:
        DataError: If it is none of these, or holds no pixel, or all.

    Example:
        >>> region_mask("0,0,0.5,1", 4)[0]
        array([ True,  True, False, False])
        >>> region_mask("0,0,1,1", 4)
        Traceback (most recent call last):
        photopic.core.errors.DataError: region 0,0,1,1: expected a part of the picture, found the whole; nothing is outside it
    """
    name = region if isinstance(region, str) else "mask"
    if isinstance(region, str):
        parts = region.split(",")
        if len(parts) == 4:
            try:
                left, top, right, bottom = map(float, parts)
            except ValueError:
                raise DataError(
                    f"region {region}: expected four numbers, left,top,right,bottom, as 0.2,0.3,0.8,0.5"
                ) from None
            place = Region(region, (left, top, right, bottom))
        elif Path(region).exists():
            place = _painted(as_mask(open_picture(region), region), name)
        else:
            raise DataError(f"region {region}: expected left,top,right,bottom or a mask picture, found neither")
    else:
        place = _painted(np.asarray(region, bool), name)
    mask: Bool[np.ndarray, "size size"] = place.coverage(size, size) >= HALF
    if not mask.any():
        raise DataError(f"region {name}: expected pixels, found none at {size} x {size}; make it larger")
    if mask.all():
        raise DataError(f"region {name}: expected a part of the picture, found the whole; nothing is outside it")
    return mask


def _painted(mask: Bool[np.ndarray, "height width"], name: str) -> Region:
    if mask.ndim != 2 or not mask.any():
        raise DataError(f"region {name}: expected a mask with something inside, found shape {mask.shape} and nothing")
    return Region(name, mask=mask)
