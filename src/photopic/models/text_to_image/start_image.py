"""The picture that drawing starts from, and its mask, in whatever form they are given: each is read by the one rule of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.folder import load_mask, load_picture
from photopic.data.picture_file import open_picture
from photopic.data.pixels import as_array, as_mask

StartImage = UInt8[np.ndarray, "..."] | Image.Image | str | Path
StartMask = Bool[np.ndarray, "h w"] | Image.Image | str | Path


def read_start(
    image: Any, mask: Any, size: int
) -> tuple[UInt8[np.ndarray, "..."] | None, Bool[np.ndarray, "h w"] | None]:
    """Both as arrays; arrays stay as they are, and their shapes are the model's to judge.

    Args:
        image: RGB as an array, a PIL image, or the path of a file, whose central square is resized; a list of these, one a prompt.
        mask: True where to draw; a PIL image or a file, light and opaque there. A file beside a file is cropped as that is.
        size: Side in pixels of the model's pictures.

    Raises:
        DataError: If a file cannot be read, or one of them is none of these.

    Example:
        >>> read_start(Image.new("L", (4, 4)), None, 4)[0].shape
        (4, 4, 3)
    """
    if isinstance(mask, str | Path):
        mask = load_mask(mask, size, of=image) if isinstance(image, str | Path) else as_mask(open_picture(mask), mask)
    elif isinstance(mask, Image.Image):
        mask = as_mask(mask)
    if mask is not None and not isinstance(mask, np.ndarray):
        raise DataError(f"mask: expected a PIL image, the path of one, or a bool array, found {type(mask).__name__}")
    if isinstance(image, list | tuple):
        return np.stack([_array(each, size) for each in image]), mask  # (prompts, h, w, 3)
    return None if image is None else _array(image, size), mask


def _array(image: Any, size: int) -> UInt8[np.ndarray, "..."]:
    if isinstance(image, str | Path):
        return load_picture(image, size)
    return image if isinstance(image, np.ndarray) else as_array(image, "image")
