"""Silhouettes to find skeletons of, read from pictures by a rule that is told: by their transparency, or by light or dark."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Bool
from PIL import Image

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.core.files import what_is_there
from photopic.data.folder import picture_files
from photopic.data.picture_file import open_picture
from photopic.data.pixels import MIDDLE, as_rgb, upright

CLEAR = 0.9  # share of pixels that are almost black or white in what is taken for a mask
FAINT = 32  # levels from black or white that are almost that
ALPHA, LIGHT, DARK = "alpha > 127", "grey > 127", "grey <= 127"

Mask = Bool[np.ndarray, "height width"]
Masks = Bool[np.ndarray, "n height width"]


@dataclass(frozen=True, kw_only=True)
class SilhouetteOptions(Config):
    """How silhouettes are read."""

    # what is inside a shape: where a picture is opaque (alpha), its light or its dark parts; auto takes transparency where there
    # is some, the light part of a black and white picture, and refuses others
    inside: Literal["auto", "alpha", "light", "dark"] = "auto"
    size: Annotated[int | None, Ge(8)] = (
        None  # longer side of each picture in pixels that it is scaled to; as it is by default
    )


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """Shapes of one size.

    Attributes:
        masks: True inside.
        names: Of the pictures.
        read_as: How each was told from its picture, such as ``alpha > 127``.

    Raises:
        DataError: If there is none.

    Example:
        >>> Silhouettes.of(np.ones((1, 8, 8), bool)).names
        ('0',)
    """

    masks: Masks
    names: tuple[str, ...]
    read_as: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.masks):
            raise DataError("silhouettes: expected one or more, found none")

    @classmethod
    def of(cls, masks: Masks) -> Silhouettes:
        """Arrays of one's own."""
        return cls(masks, tuple(map(str, range(len(masks)))), ("True",) * len(masks))

    def __len__(self) -> int:
        return len(self.masks)

    def digest(self) -> str:
        """Hex sha256 of the masks."""
        return hashlib.sha256(repr(self.masks.shape).encode() + np.packbits(self.masks).tobytes()).hexdigest()


def read_silhouettes(word: str, options: SilhouetteOptions, model: Any = None) -> Silhouettes:
    """The shapes of a picture or of a folder of pictures, each in the middle of a square as large as the longest side of all.

    Args:
        word: A picture, or a folder of pictures.
        options: How to read.
        model: Not asked.

    Raises:
        DataError: If there is no picture, one shows no shape by the rule, or one is inside everywhere.

    Example:
        >>> read_silhouettes("shapes", SilhouetteOptions()).read_as[0]  # doctest: +SKIP
        'alpha > 127'
    """
    path = Path(word)
    files = [path] if not what_is_there(path) else picture_files(path)
    found = [silhouette_of(open_picture(file), file, options) for file in files]
    side = max(max(mask.shape) for mask, _ in found)
    return Silhouettes(
        np.stack([_in_square(mask, side) for mask, _ in found]),
        tuple(file.name for file in files), tuple(how for _, how in found),
    )  # fmt: skip


def silhouette_of(image: Image.Image, name: object, options: SilhouetteOptions) -> tuple[Mask, str]:
    """The shape in a picture, and the rule it was told by.

    Args:
        image: Of any mode.
        name: What messages call it.
        options: How to read.

    Raises:
        DataError: As ``read_silhouettes``.

    Example:
        >>> silhouette_of(Image.new("RGB", (4, 4), "red"), "red.png", SilhouetteOptions())
        Traceback (most recent call last):
        photopic.core.errors.DataError: red.png: expected a black and white mask or a picture with transparency, found neither; \
say what is inside: --inside light or dark
    """
    clear = image.has_transparency_data and np.asarray(upright(image).convert("RGBA"))[..., 3].min() < 255
    if options.inside == "alpha" and not clear:
        raise DataError(f"{name}: expected a picture with transparency, found none; use --inside light or dark")
    if options.inside == "alpha" or (options.inside == "auto" and clear):
        levels, how = upright(image).convert("RGBA").getchannel("A"), ALPHA
    else:
        levels, how = as_rgb(image, name).convert("L"), DARK if options.inside == "dark" else LIGHT
        values = np.asarray(levels)
        if options.inside == "auto" and ((values < FAINT) | (values > 255 - FAINT)).mean() < CLEAR:
            raise DataError(
                f"{name}: expected a black and white mask or a picture with transparency, found neither; say what is inside: "
                "--inside light or dark"
            )
    if options.size is not None:
        scale = options.size / max(levels.size)
        levels = levels.resize([max(1, round(side * scale)) for side in levels.size], Image.Resampling.BICUBIC)
    mask = (np.asarray(levels) <= MIDDLE) if how == DARK else np.asarray(levels) > MIDDLE
    if not mask.any() or mask.all():
        there = "everything inside" if mask.any() else "nothing inside"
        raise DataError(
            f"{name}: expected a shape ({how}), found {there}; say what is inside: --inside alpha, light or dark"
        )
    return mask, how


def _in_square(mask: Mask, side: int) -> Bool[np.ndarray, "side side"]:
    """What was added is outside the shape."""
    room = [(side - length) // 2 for length in mask.shape]
    found = np.zeros((side, side), bool)
    found[room[0] : room[0] + mask.shape[0], room[1] : room[1] + mask.shape[1]] = mask
    return found
