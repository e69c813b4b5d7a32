"""A folder of the user's own images, as the field lays it out: pictures of any common format beside same-stem captions.

    photos/bear-1.jpg   photos/bear-1.txt ("a bear on a sofa")   photos/bear-2.png   ...

Pictures are read by the one rule of ``pixels``, captions by that of ``captions``; each picture becomes its central square, resized
to the side the model works at. A file that looks like a picture and cannot be used is an error; everything else that is passed
over is named in a warning.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.files import read_file, what_is_there
from photopic.data.captions import is_caption, read_captions
from photopic.data.picture_file import SUFFIXES, decode, looks_like_picture, open_picture, read_picture
from photopic.data.pixels import MIDDLE, as_rgb, from_pixels, mask_levels, upright

_SHOWN = 5


class PassedOverWarning(UserWarning):
    """Files of a folder that are neither pictures nor captions of them."""


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder, ready for a model, in the order of their names.

    Attributes:
        images: The pictures, RGB in -1 to 1.
        names: File names.
        captions: The caption of each picture, None where there is none or it is empty.
        digest: SHA-256 in hexadecimal over the bytes of every picture and caption in order, not over their names.
    """

    images: Float[Tensor, "images 3 size size"]
    names: tuple[str, ...]
    captions: tuple[str | None, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.names)


def load_folder(path: str | Path, size: int) -> ImageFolder:
    """Read every picture of a folder (not of its sub-folders); what is passed over is named in a ``PassedOverWarning``.

    Args:
        path: The folder.
        size: Side in pixels of the square every picture becomes.

    Returns:
        Pictures, names, captions and the digest of what was read.

    Raises:
        DataError: If the folder is missing or holds no picture, or if one picture or caption cannot be used; the
            message names the file, what was expected, what was found and the fix.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (80, 60), "red").save(folder / "one.png")
        >>> load_folder(folder, 64).images.shape
        torch.Size([1, 3, 64, 64])
    """
    files, others = contents(Path(path))
    found, lost = read_captions(files, others)
    captions = [found.get(file, (None, b"")) for file in files]
    hasher = hashlib.sha256()
    pictures = []
    for file, (_, caption_bytes) in zip(files, captions, strict=True):
        content = read_file(file, DataError)
        pictures.append(np.asarray(_square(as_rgb(decode(content, file), file), size)))
        for part in (content, caption_bytes):  # lengths keep the boundary between files unambiguous
            hasher.update(len(part).to_bytes(8, "little") + part)
    warn_passed_over(path, [*strangers(others), *lost])
    return ImageFolder(
        images=from_pixels(np.stack(pictures)),  # (images, 3, size, size)
        names=tuple(file.name for file in files),
        captions=tuple(text for text, _ in captions),
        digest=hasher.hexdigest(),
    )


def load_picture(path: str | Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """One picture as ``load_folder`` reads it: upright, over white, its central square, resized.

    Args:
        path: The file.
        size: Side in pixels of the result.

    Raises:
        DataError: If the file cannot be read as a picture.

    Example:
        >>> load_picture("photos/bear-1.jpg", 64).shape  # doctest: +SKIP
        (64, 64, 3)
    """
    return np.asarray(_square(read_picture(path), size))


def load_mask(path: str | Path, size: int, *, of: str | Path) -> Bool[np.ndarray, "size size"]:
    """A painted mask beside a picture, cropped and resized as ``load_picture`` does with the picture.

    Args:
        path: The mask: what is lighter than middle grey is True, what is transparent False.
        size: Side in pixels of the result.
        of: The picture; the mask must have its width and height.

    Raises:
        DataError: If a file cannot be read as a picture, or the two differ in size.

    Example:
        >>> load_mask("mask.png", 64, of="bear-1.jpg").dtype  # doctest: +SKIP
        dtype('bool')
    """
    picture, mask = upright(open_picture(of)), mask_levels(open_picture(path), path)
    if mask.size != picture.size:
        expected, found = (f"{image.width} x {image.height}" for image in (picture, mask))
        raise DataError(f"{path}: expected a mask of {expected} pixels as {of}, found {found}; save it at that size")
    return np.asarray(_square(mask, size)) > MIDDLE


def contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder and its other entries, each in the order of their names; hidden ones do not count.

    Raises:
        DataError: If it is no folder, holds no picture, or one of a format that cannot be read.

    Example:
        >>> contents(Path("photos"))  # doctest: +SKIP
        ([PosixPath('photos/bear-1.jpg')], [PosixPath('photos/bear-1.txt')])
    """
    pictures: list[Path] = []
    others: list[Path] = []
    for entry in entries(folder):
        (pictures if is_picture(entry) else others).append(entry)
    if not pictures:
        found = f"{len(others)} other entries, such as {others[0].name}" if others else "an empty folder"
        raise DataError(f"{folder}: expected at least one image, found {found}; put pictures in it")
    return pictures, others


def picture_files(folder: Path) -> list[Path]:
    """The pictures alone of ``contents``."""
    return contents(folder)[0]


def entries(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, in the order of the names.

    Raises:
        DataError: If it is no folder or cannot be listed.
    """
    if (found := what_is_there(folder)) != "a folder":
        there = f"{found} there" if found == "nothing" else found or "a file"
        fix = "check the path" if found else "give the folder that holds it"
        raise DataError(f"{folder}: expected a folder of images, found {there}; {fix}")
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error


def is_picture(entry: Path) -> bool:
    """Whether an entry of a folder is read as a picture.

    Raises:
        DataError: If it is called one and is a pipe or a broken link, or is of a format that cannot be read.
    """
    found = what_is_there(entry)
    if found and found != "a folder" and entry.suffix.lower() in SUFFIXES:
        raise DataError(f"{entry}: expected a picture, found {found}; remove or replace it")
    return not found and not is_caption(entry) and looks_like_picture(entry)


def strangers(others: Iterable[Path]) -> list[str]:
    """The entries that are no captions either, with what is no file in words.

    Example:
        >>> strangers([Path("a.txt"), Path("/dev")])
        ['dev (a folder)']
    """
    named = ((each, what_is_there(each)) for each in others if not is_caption(each))
    return [f"{each.name} ({found})" if found else each.name for each, found in named]


def warn_passed_over(folder: str | Path, names: Iterable[str]) -> None:
    """Name what of a folder is not used, in one ``PassedOverWarning``; nothing where there is nothing."""
    names = list(names)
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        warnings.warn(f"{folder}: passed over {', '.join(names[:_SHOWN])}{more}", PassedOverWarning, stacklevel=3)


def _square(image: Image.Image, size: int) -> Image.Image:
    """Crop the central square, then resize."""
    side = min(image.size)  # the shorter one: the centre is cropped, never squeezed
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cropped = image.crop((left, top, left + side, top + side))
    return cropped if side == size else cropped.resize((size, size), Image.Resampling.LANCZOS)
