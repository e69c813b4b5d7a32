"""Pictures as files: pixels and settings come back, and nothing is overwritten."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.pictures import contact_sheet, next_number, png_bytes, read_settings

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def test_pixels_and_settings_come_back_from_the_file(tmp_path: Path) -> None:
    settings = {"prompt": "a <mine> bear", "seed": 3, "with": ["bear.edit"]}
    content = png_bytes(PICTURE, settings)
    (tmp_path / "a.png").write_bytes(content)
    assert read_settings(tmp_path / "a.png") == settings
    assert (np.asarray(Image.open(io.BytesIO(content))) == PICTURE).all()
    assert png_bytes(PICTURE, dict(reversed(settings.items()))) == content  # the same bytes whatever the order


@pytest.mark.parametrize("content", [png_bytes(PICTURE), b"text", b""])
def test_a_file_without_settings_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.png").write_bytes(content)
    with pytest.raises(DataError, match=r"other\.png"):
        read_settings(tmp_path / "other.png")


def test_every_picture_of_a_sheet_is_where_its_number_says() -> None:
    pictures = [np.full((4, 5, 3), 10 * k, np.uint8) for k in range(5)]
    sheet = contact_sheet(pictures, columns=2, scale=3, gap=1)
    assert sheet.shape == (3 * (12 + 1) + 1, 2 * (15 + 1) + 1, 3)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 2)
        place = sheet[1 + row * 13 : 13 + row * 13, 1 + column * 16 : 16 + column * 16]
        assert (place == picture[0, 0]).all()
    assert (sheet[27:39, 17:32] == 255).all()  # the sixth place stays white


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    assert next_number(tmp_path) == 1
    for name in ("0003.png", "0011-bear.png", "notes.txt", "12.png"):
        (tmp_path / name).touch()
    assert next_number(tmp_path) == 12
