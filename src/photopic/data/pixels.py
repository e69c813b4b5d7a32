"""The one rule for the pixels of pictures and masks, whether from a file, from Pillow or as an array.

A picture is turned upright, reduced to 8 bits and laid over white where it is transparent; a mask is inside where it is light and
opaque. Pixels without a known white (floats, 32-bit integers) are refused by name: a guess would be black or white in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor, as_tensor

from photopic.core.errors import DataError

Images = UInt8[np.ndarray, "..."] | UInt8[Tensor, "..."] | Sequence[Any]
"""Pictures, RGB, RGBA or gray, channels first or last: an array or tensor of 8 or 16 bits, one picture, or a list of PIL images and
arrays of any sizes."""
OneOrMore = Images | Image.Image

ORIENTATION = 0x0112  # the only tag of EXIF that is read
UPRIGHT = {  # its values, by what brings the first row of pixels to the top and the first column to the left
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_BITS = ("PNG", "PPM", "JPEG2000")  # formats that Pillow may hand on as 32-bit integers of 0 to 65535
MIDDLE = 127  # a mask is inside above it


def as_rgb(image: Image.Image, name: object = "picture") -> Image.Image:
    """A picture upright, in RGB, over white where it is transparent.

    Args:
        image: Of any mode.
        name: What messages call it.

    Raises:
        DataError: If its pixels have no known white, or colours of a kind that Pillow cannot convert.

    Example:
        >>> as_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    return _over(image, "white", name)


def as_mask(image: Image.Image, name: object = "mask") -> Bool[np.ndarray, "height width"]:
    """Where a mask is inside: lighter than middle grey; what is transparent is outside, whatever colour it hides.

    Args:
        image: Of any mode.
        name: What messages call it.

    Raises:
        DataError: As ``as_rgb``.

    Example:
        >>> as_mask(Image.new("LA", (2, 1), (255, 0))).tolist()
        [[False, False]]
    """
    return np.asarray(mask_levels(image, name)) > MIDDLE


def mask_levels(image: Image.Image, name: object = "mask") -> Image.Image:
    """A mask as grey of 0 (outside) to 255, for resizing before ``MIDDLE`` parts it."""
    return _over(image, "black", name).convert("L")


def opaque(image: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Where a picture is not wholly transparent, upright."""
    image = upright(image)
    if not image.has_transparency_data:
        return np.ones(image.size[::-1], bool)
    return np.asarray(_eight_bit(image, "picture").convert("RGBA"))[..., 3] > 0  # (h, w, 4) -> (h, w)


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says; a block that cannot be read says nothing, and nothing else of it is looked at.

    Example:
        >>> picture = Image.new("L", (2, 1))
        >>> picture.getexif()[ORIENTATION] = 6
        >>> upright(picture).size
        (1, 2)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is damaged in it
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises a dozen types on damaged blocks
        return image
    return image if turn is None else image.transpose(turn)


def _over(image: Image.Image, ground: str, name: object) -> Image.Image:
    """RGB of a picture laid over one colour."""
    image = _eight_bit(upright(image), name)
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        layered = image.convert("RGBA")
    except ValueError as error:  # premultiplied grey, for one
        raise DataError(
            f"{name}: expected RGB or grey, found colours of kind {image.mode}; save it as an RGB picture"
        ) from error
    return Image.alpha_composite(Image.new("RGBA", layered.size, ground), layered).convert("RGB")


def _eight_bit(image: Image.Image, name: object) -> Image.Image:
    """16-bit grey by its high bytes, as Pillow reads 16-bit colour (its own conversion of grey clips to white)."""
    if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BITS):
        kind = "floating-point pixels" if image.mode == "F" else "32-bit integers, whose white is not known"
        raise DataError(f"{name}: expected 8 or 16 bits a channel, found {kind}; save it as an 8-bit PNG")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)  # (h, w) of 0 to 65535
    reduced = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")  # the one value that is transparent, of all 16 bits
    if isinstance(clear, int):
        reduced.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return reduced


def arrays(images: OneOrMore) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Pictures as a list of RGB arrays, by the same rule as pictures of files.

    Raises:
        DataError: If there is none or one is no picture; the message says which and what it is.

    Example:
        >>> [each.shape for each in arrays([Image.new("L", (4, 2)), np.zeros((3, 5, 6), np.uint8)])]
        [(2, 4, 3), (5, 6, 3)]
    """
    several = batched(images)
    if len(several) == 0:
        raise DataError("images: expected at least one, found none")
    return [as_array(image, f"images: number {number}") for number, image in enumerate(several)]


def batched(images: OneOrMore) -> Any:
    """A single picture as a batch of one, anything else as it is.

    Example:
        >>> len(batched(np.zeros((5, 6, 3), np.uint8)))
        1
    """
    single = isinstance(images, Image.Image) or (isinstance(images, np.ndarray | Tensor) and images.ndim in (2, 3))
    return [images] if single else images


def as_array(image: Any, name: object = "picture") -> UInt8[np.ndarray, "h w 3"]:
    """One picture as an RGB array; what it is not is named.

    Args:
        image: A PIL image, or an array or tensor of bool, 8 or 16 bits: (h, w), or with 1 to 4 channels first or last.
        name: What messages call it.

    Raises:
        DataError: If it is none of these, or empty.

    Example:
        >>> as_array(np.zeros((2, 1, 4), np.uint8))[0, 0].tolist()
        [255, 255, 255]
    """
    if isinstance(image, Image.Image):
        return np.asarray(as_rgb(image, name))
    array = image.cpu().numpy() if isinstance(image, Tensor) else image
    shaped = _channels_last(array) if isinstance(array, np.ndarray) and array.dtype in (bool, "u1", "u2") else None
    if shaped is None:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(
            f"{name} should be a PIL image or uint8 (height, width, 3), (3, height, width) or gray (height, width), found {found}"
        )
    if 0 in shaped.shape:
        raise DataError(f"{name} is empty ({array.shape}); leave it out")
    if shaped.dtype != np.uint8:  # a bitmap of True for white, or 16 bits by their high bytes
        shaped = np.where(shaped, 255, 0).astype(np.uint8) if shaped.dtype == bool else (shaped >> 8).astype(np.uint8)
    if shaped.shape[2] in (2, 4):  # grey or colour with alpha
        return np.asarray(as_rgb(Image.fromarray(shaped, "LA" if shaped.shape[2] == 2 else "RGBA"), name))
    return np.ascontiguousarray(shaped if shaped.shape[2] == 3 else np.repeat(shaped, 3, 2))  # (h, w, 1) -> (h, w, 3)


def _channels_last(array: np.ndarray) -> np.ndarray | None:
    """(h, w, channels) of an array of any layout that a picture has; None if it has none of them."""
    if array.ndim == 2:
        return array[:, :, None]  # (h, w) -> (h, w, 1)
    if array.ndim != 3:
        return None
    if array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        return array.transpose(1, 2, 0)  # (c, h, w) -> (h, w, c)
    return array if array.shape[2] in (1, 2, 3, 4) else None


def from_pixels(images: UInt8[np.ndarray, "n h w 3"] | UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """From 8 bits to -1..1, channels first, as diffusion models take them.

    Example:
        >>> from_pixels(np.full((1, 1, 1, 3), 255, np.uint8)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """
    return as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(pictures: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """From -1..1 to 8 bits, channels last; beyond them the nearest."""
    scaled = (pictures.float().clamp(-1, 1) * 127.5 + 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
