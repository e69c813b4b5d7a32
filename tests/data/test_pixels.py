"""One rule for pixels: files, PIL images and arrays give the same picture, and what has no known white is refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.picture_file import decode, kind_of, read_picture
from photopic.data.pixels import ORIENTATION, UPRIGHT, arrays, as_array, as_mask, as_rgb


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def palette(**options: Any) -> Image.Image:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30])
    return saved(image, **options)


FULL = np.full((4, 4), 65535, np.uint16)
PICTURES: dict[str, tuple[Any, tuple[int, int, int]]] = {  # every form of a picture and the colour it has
    "red": (Image.new("RGB", (4, 4), "red"), (255, 0, 0)),
    "clear red": (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), (255, 255, 255)),
    "half black": (Image.new("RGBA", (4, 4), (0, 0, 0, 128)), (127, 127, 127)),
    "grey with alpha": (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
    "bitmap": (Image.new("1", (4, 4), 1), (255, 255, 255)),
    "CMYK": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
    "palette": (palette(), (10, 20, 30)),
    "palette, clear": (palette(transparency=0), (255, 255, 255)),
    "16 bits": (Image.fromarray(FULL // 2 + 1), (128, 128, 128)),
    "16 bits, clear": (saved(Image.fromarray(FULL // 2), transparency=32767), (255, 255, 255)),
    "16 bits, PGM": (saved(Image.fromarray(FULL // 2 + 1), "PPM"), (128, 128, 128)),
    "array": (np.full((4, 4, 3), 7, np.uint8), (7, 7, 7)),
    "array, channels first": (np.full((3, 4, 4), 7, np.uint8), (7, 7, 7)),
    "array with alpha": (np.zeros((4, 4, 4), np.uint8), (255, 255, 255)),
    "array, grey with alpha": (np.zeros((4, 4, 2), np.uint8), (255, 255, 255)),
    "array of 16 bits": (FULL, (255, 255, 255)),
    "array of truths": (FULL > 0, (255, 255, 255)),
    "tensor": (torch.full((4, 4), 7, dtype=torch.uint8), (7, 7, 7)),
}


@pytest.mark.parametrize("form", PICTURES)
def test_every_form_of_a_picture_has_its_colours(form: str, tmp_path: Path) -> None:
    image, colour = PICTURES[form]
    (found,) = arrays([image])
    assert found.shape == (4, 4, 3) and found.dtype == np.uint8 and (found == colour).all()
    if isinstance(image, Image.Image) and image.mode != "CMYK":
        again = image if image.format else saved(image)
        again.save(tmp_path / f"a.{(again.format or 'png').lower()}")
        (file,) = tmp_path.iterdir()
        assert (np.asarray(read_picture(file)) == colour).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone_in_pictures_and_masks(orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    turned = Image.fromarray(pixels)
    turned = turned.transpose(UPRIGHT[inverse]) if orientation > 1 else turned
    image = saved(turned, exif=exif)
    assert (np.asarray(as_rgb(image))[..., 0] == pixels).all()
    assert (as_mask(image) == (pixels > 127)).all()


def test_a_damaged_exif_block_says_nothing() -> None:
    for block in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"):
        file = io.BytesIO()
        Image.new("RGB", (3, 2), "red").save(file, "JPEG", exif=block)
        assert as_rgb(decode(file.getvalue(), "a.jpg")).size == (3, 2)


def test_a_mask_is_inside_where_light_and_opaque() -> None:
    assert as_mask(Image.new("RGBA", (1, 1), (255, 255, 255, 0))).sum() == 0
    assert as_mask(Image.new("L", (1, 1), 128)).all() and not as_mask(Image.new("L", (1, 1), 127)).any()
    assert as_mask(Image.fromarray(FULL)).all()


WRONG = {
    "floats": (Image.new("F", (2, 2)), "floating-point pixels"),
    "32 bits": (Image.fromarray(np.zeros((2, 2), np.int32)), "32-bit integers, whose white is not known"),
    "premultiplied grey": (Image.new("La", (2, 2)), "colours of kind La"),
    "an array of floats": (np.zeros((2, 2, 3), np.float32), r"found float32 \(2, 2, 3\)"),
    "two grey pictures": (np.zeros((2, 5, 6), np.uint8), r"found uint8 \(2, 5, 6\)"),
    "a name": ("a.png", "found str"),
    "nothing": (np.zeros((0, 2, 3), np.uint8), "is empty"),
}


@pytest.mark.parametrize("form", WRONG)
def test_pixels_without_a_known_white_are_refused(form: str) -> None:
    image, reason = WRONG[form]
    with pytest.raises(DataError, match=reason):
        as_array(image)


NONE = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200,
    "HTML or SVG": b"<html>404</html>",
    "an unknown format": b"\x0a\x05\x01\x08" + b"\0" * 200,
    "a ZIP archive": b"PK\3\4" + b"\0" * 64,
    "an empty file": b"",
    "a damaged file": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "a video": b"\0\0\0\x18ftypisom\0\0\0\0",
}


@pytest.mark.parametrize("found", NONE)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_what_is_no_picture_is_called_what_it_is(found: str, ending: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{ending}").write_bytes(NONE[found])
    with pytest.raises(DataError, match=rf"x\.{ending}: expected .*, found {found}") as caught:
        read_picture(tmp_path / f"x.{ending}")
    assert "\n" not in str(caught.value) and "MPO" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI"])
def test_a_format_is_known_by_its_first_bytes(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    assert kind_of(file.getvalue()) == kind and decode(file.getvalue(), "x").size == (16, 16)
