"""From a file to one picture: what it is, by its first bytes, and its pixels, none of them decoded before the size is known."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

from PIL import Image

from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.data.pixels import as_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI")
SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .gif .tif .tiff .avif .jp2 .j2k .jpx .ppm .pgm .pbm .pnm .tga "
    ".ico .qoi".split()
)
UNREADABLE_SUFFIXES = frozenset(".heic .heif .dng .cr2 .cr3 .nef .arw .raf .raw .psd .svg .jxl".split())
UNREADABLE = ("HEIC", "JPEG XL", "Photoshop", "camera raw")  # pictures that Pillow does not read
MAX_PIXELS = (
    128_000_000  # largest camera pictures are about 108 million; a decoded RGB picture of this size takes 384 MB
)
UNKNOWN = "an unknown format"
SIGNATURES = {  # what a file of a format starts with
    rb"\x89PNG\r\n\x1a\n": "PNG",
    rb"\xff\xd8\xff": "JPEG",
    rb"RIFF.{4}WEBP": "WEBP",
    rb"GIF8": "GIF",
    rb"BM": "BMP",
    rb"II\*\x00.{4}CR": "camera raw",
    rb"II\*\x00|MM\x00\*": "TIFF",
    rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51": "JPEG2000",
    rb"P[1-6]\s+[#\d]": "PPM",
    rb"\x00\x00\x01\x00": "ICO",
    rb"qoif": "QOI",
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": "JPEG XL",
    rb"8BPS": "Photoshop",
    rb".{4}ftypcrx": "camera raw",
    rb".{4}ftyp.{0,28}avi[fs]": "AVIF",
    rb".{4}ftyp(he[iv]|mif1|msf1)": "HEIC",  # of telephones
    rb".{4}ftyp": "a video",
    rb"%PDF": "PDF",
    rb"PK\x03\x04": "a ZIP archive",
    rb"\s*<": "HTML or SVG",
    rb"\s*\{": "JSON",
}


def kind_of(content: bytes) -> str:
    """The format of a file, by what it starts with, whatever its name ends in.

    Args:
        content: Its first 40 bytes, or all.

    Example:
        >>> kind_of(b"GIF89a"), kind_of(b"....ftypheic"), kind_of(b"hello")
        ('GIF', 'HEIC', 'an unknown format')
    """
    kinds = (kind for start, kind in SIGNATURES.items() if re.match(start, content[:40], re.DOTALL))
    return next(kinds, UNKNOWN)


def looks_like_picture(file: Path) -> bool:
    """Whether a file is one of pictures, by its ending or, with another ending, by what it starts with.

    Raises:
        DataError: If it is no file, cannot be read, or is of a format of pictures that cannot be read here.
    """
    suffix = file.suffix.lower()
    if suffix in UNREADABLE_SUFFIXES:
        raise unreadable(file, suffix)
    if suffix in SUFFIXES:
        return True
    try:
        with file.open("rb") as opened:
            kind = kind_of(opened.read(40))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    if kind in UNREADABLE:
        raise unreadable(file, kind)
    return kind in FORMATS and kind not in ("BMP", "PPM", "ICO")  # whose few first bytes a text may have too


def unreadable(file: Path, found: str) -> DataError:
    """What to say of a picture in a format that is known and not read."""
    return DataError(
        f"{file}: expected a PNG, JPEG, WebP or another common format, found {found}; "
        "convert it to PNG or JPEG, or move it out of the folder"
    )


def read_picture(file: str | Path) -> Image.Image:
    """One picture in its own size: upright, RGB, over white.

    Raises:
        DataError: If the file cannot be read as a picture.

    Example:
        >>> read_picture("photos/bear-1.jpg").mode  # doctest: +SKIP
        'RGB'
    """
    return as_rgb(open_picture(file), file)


def open_picture(file: str | Path) -> Image.Image:
    """One picture as its file has it, of any mode and orientation, for ``photopic.data.pixels``.

    Raises:
        DataError: If there is no file, or it holds no whole picture of at most ``MAX_PIXELS``; says what it is in its place.
    """
    return decode(read_file(Path(file), DataError), file)


def decode(content: bytes, file: str | Path) -> Image.Image:
    """The picture in the bytes of a file; its size is checked from the header, before any pixel is decoded.

    Args:
        content: All bytes.
        file: What messages call it; its ending matters for TGA alone, which starts with nothing of its own.

    Raises:
        DataError: As ``open_picture``.
    """
    image = identify(content, file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF blocks and palettes warn; the pixels decide
            image.load()
    except Exception as error:  # Pillow's readers raise a dozen types on broken files
        raise _damaged(file, error) from error
    return image


def identify(content: bytes, file: str | Path) -> Image.Image:
    """A picture of which only the header is read.

    Raises:
        DataError: As ``open_picture``.
    """
    if not content:
        raise DataError(f"{file}: expected an image, found an empty file; remove or replace it")
    formats = (*FORMATS, "TGA") if Path(file).suffix.lower() == ".tga" else FORMATS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning starts below our limit
            image = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as error:
        raise _too_large(file, "more than " + f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except Image.UnidentifiedImageError as error:
        kind = kind_of(content)
        if kind in FORMATS:
            raise _damaged(file, f"its header is no {kind}'s") from error
        raise DataError(
            f"{file}: expected a readable image, found {kind}; save it as PNG or JPEG, or remove it"
        ) from error
    except Exception as error:
        raise _damaged(file, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(file, f"{image.width} x {image.height} pixels")
    return image


def _damaged(file: str | Path, reason: object) -> DataError:
    said = " ".join(str(reason).split())[:120]
    return DataError(f"{file}: expected a readable image, found a damaged file ({said}); save it again or remove it")


def _too_large(file: str | Path, found: str) -> DataError:
    return DataError(f"{file}: expected at most {MAX_PIXELS:,} pixels, found {found}; scale it down and save it again")
