"""A folder of the user's own images, as the field lays it out: pictures of any common format beside same-stem captions.

    photos/bear-1.jpg   photos/bear-1.txt ("a bear on a sofa")   photos/bear-2.png   ...

Every picture is turned upright (EXIF), laid over white where it is transparent, cropped to its central square and
resized to the side the model works at. A file that looks like a picture and cannot be used is an error, never skipped.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from photopic.core.errors import DataError

SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pnm",
        ".tga",
        ".ico",
        ".qoi",
    ]
)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "QOI", "MPO")
UNREADABLE_SUFFIXES = frozenset(
    [".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".raw", ".psd", ".svg", ".jxl"]
)
MAX_PIXELS = (
    128_000_000  # largest camera pictures are about 108 million; a decoded RGB picture of this size takes 384 MB
)
MAX_CAPTION_BYTES = 64 * 1024


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder, ready for a model, in the order of their names.

    Attributes:
        images: The pictures, RGB in -1 to 1.
        names: File names.
        captions: The caption of each picture, None where there is no caption file or it is empty.
        digest: SHA-256 in hexadecimal over the bytes of every picture and caption file in order, not over their names.
    """

    images: Float[Tensor, "images 3 size size"]
    names: tuple[str, ...]
    captions: tuple[str | None, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.names)


def load_folder(path: str | Path, size: int) -> ImageFolder:
    """Read every picture of a folder (not of its sub-folders).

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
    files = picture_files(Path(path))
    hasher = hashlib.sha256()
    pictures, captions = [], []
    for file in files:
        content = _read(file)
        pictures.append(_square(_decode(content, file), size))
        caption, caption_bytes = _caption(file)
        captions.append(caption)
        for part in (content, caption_bytes):  # lengths keep the boundary between files unambiguous
            hasher.update(len(part).to_bytes(8, "little") + part)
    stacked = torch.from_numpy(np.stack(pictures))  # (images, size, size, 3)
    return ImageFolder(
        images=stacked.permute(0, 3, 1, 2).float() / 127.5 - 1,
        names=tuple(file.name for file in files),
        captions=tuple(captions),
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
    return _square(_decode(_read(Path(path)), Path(path)), size)


def load_mask(path: str | Path, size: int, *, of: str | Path) -> Bool[np.ndarray, "size size"]:
    """A painted mask beside a picture, cropped and resized as ``load_picture`` does with the picture.

    Args:
        path: The mask: what is lighter than middle grey is True.
        size: Side in pixels of the result.
        of: The picture; the mask must have its width and height.

    Raises:
        DataError: If a file cannot be read as a picture, or the two differ in size.

    Example:
        >>> load_mask("mask.png", 64, of="bear-1.jpg").dtype  # doctest: +SKIP
        dtype('bool')
    """
    picture, mask = (_decode(_read(Path(file)), Path(file)) for file in (of, path))
    if mask.size != picture.size:
        expected, found = (f"{image.width} x {image.height}" for image in (picture, mask))
        raise DataError(f"{path}: expected a mask of {expected} pixels as {of}, found {found}; save it at that size")
    return _square(mask, size).mean(-1) > 127.5


def read_picture(file: Path) -> Image.Image:
    """One picture in its own size: upright, RGB, over white.

    Raises:
        DataError: If the file cannot be read as a picture.

    Example:
        >>> read_picture(Path("photos/bear-1.jpg")).mode  # doctest: +SKIP
        'RGB'
    """
    return _decode(_read(file), file)


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names.

    Raises:
        DataError: If it is no folder, holds no picture, or one of a format that cannot be read.

    Example:
        >>> picture_files(Path("photos"))  # doctest: +SKIP
        [PosixPath('photos/bear-1.jpg')]
    """
    if not folder.exists():
        raise DataError(f"{folder}: expected a folder of images, found nothing there; check the path")
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of images, found a file; give the folder that holds it")
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    for entry in entries:
        if entry.suffix.lower() in UNREADABLE_SUFFIXES:
            raise DataError(
                f"{entry}: expected a PNG, JPEG, WebP or another common format, found {entry.suffix}; "
                "convert it to PNG or JPEG, or move it out of the folder"
            )
    pictures = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if not pictures:
        found = f"{len(entries)} other entries, such as {entries[0].name}" if entries else "an empty folder"
        raise DataError(f"{folder}: expected at least one image, found {found}; put 3 to 10 pictures in it")
    return pictures


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error


def _decode(content: bytes, file: Path) -> Image.Image:
    """The upright picture in RGB. The size is checked from the header, before any pixel is decoded."""
    if not content:
        raise DataError(f"{file}: expected an image, found an empty file; remove or replace it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning starts below our limit
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(file, "more than " + f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except Exception as error:  # Pillow's readers raise a dozen types on broken files
        raise _corrupt(file, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(file, f"{image.width} x {image.height} pixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF blocks and palettes warn; the pixels decide
            image.load()
            return _over_white(_eight_bit(ImageOps.exif_transpose(image), file))
    except DataError:
        raise
    except Exception as error:
        raise _corrupt(file, error) from error


def _corrupt(file: Path, error: Exception) -> DataError:
    reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())[:120]
    return DataError(f"{file}: expected a readable image, found a damaged file ({reason}); save it again or remove it")


def _too_large(file: Path, found: str) -> DataError:
    return DataError(f"{file}: expected at most {MAX_PIXELS:,} pixels, found {found}; scale it down and save it again")


def _eight_bit(image: Image.Image, file: Path) -> Image.Image:
    if image.mode == "F":
        raise DataError(
            f"{file}: expected 8 or 16 bits a channel, found floating-point pixels; save it as an 8-bit PNG"
        )
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    return image


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def _square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Crop the central square, then resize."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cropped = image.crop((left, top, left + side, top + side))
    if side != size:
        cropped = cropped.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(cropped)


def _caption(picture: Path) -> tuple[str | None, bytes]:
    file = picture.with_suffix(".txt")
    if not file.is_file():
        return None, b""
    content = _read(file)
    if len(content) > MAX_CAPTION_BYTES:
        raise DataError(
            f"{file}: expected a caption of at most {MAX_CAPTION_BYTES:,} bytes, found {len(content):,}; "
            "keep one sentence, or rename the file if it is no caption"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: expected a caption in UTF-8, found other bytes at position {error.start}; save it as UTF-8"
        ) from error
    return " ".join(text.split()) or None, content
