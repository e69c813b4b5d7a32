"""A folder of the user's images: it is read by the field's conventions, and bad input is one clear line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data import folder
from photopic.data.folder import load_folder


def save(path: Path, size: tuple[int, int] = (40, 40), colour: object = "red", **options: object) -> Path:
    Image.new("RGB", size, colour).save(path, **options)  # type: ignore[arg-type]
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_folder(path, 16)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reads_common_formats_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("d.png", "c.jpg", "b.webp", "a.bmp", "e.GIF", "f.tiff", "notes.md", ".hidden.png"):
        save(tmp_path / name) if name != "notes.md" else (tmp_path / name).write_text("hello")
    found = load_folder(tmp_path, 16)
    assert found.names == ("a.bmp", "b.webp", "c.jpg", "d.png", "e.GIF", "f.tiff")
    assert found.images.shape == (6, 3, 16, 16) and len(found) == 6
    red = found.images.mean((2, 3))
    assert (red[:, 0] > 0.95).all() and (red[:, 1:] < -0.95).all()


def test_same_stem_text_is_the_caption(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    (tmp_path / "a.txt").write_text("\ufeffa bear\n  on a sofa \n", encoding="utf-8")
    (tmp_path / "c.txt").write_text(" \n")
    assert load_folder(tmp_path, 16).captions == ("a bear on a sofa", None, None)


def test_exif_orientation_turns_the_picture_upright(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = load_folder(tmp_path, 32).images[0, 0]
    assert image[:16].max() == -1 and image[16:].min() == 1


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGBA", (20, 20), (0, 0, 0, 128)).save(tmp_path / "b.png")
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "c.png", transparency=0)
    images = load_folder(tmp_path, 20).images
    assert (images[0] == 1).all() and (images[2] == 1).all()
    assert abs(images[1].mean().item() - (127 / 127.5 - 1)) < 0.01


def test_the_centre_is_cropped_not_squeezed(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_folder(tmp_path, 20).images == 1).all()


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 32896, np.uint16)).save(tmp_path / "a.png")
    assert abs(load_folder(tmp_path, 20).images.mean().item()) < 0.01


def test_digest_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    def digest(name: str, colour: str, caption: str | None) -> str:
        place = tmp_path / f"{name}-{colour}-{caption}"
        place.mkdir()
        save(place / f"{name}.png", colour=colour)
        if caption:
            (place / f"{name}.txt").write_text(caption)
        return load_folder(place, 16).digest

    assert digest("a", "red", None) == digest("b", "red", None)
    assert len({digest("c", "red", None), digest("c", "blue", None), digest("c", "red", "a bear")}) == 3


def test_empty_missing_and_wrong_folders_are_refused(tmp_path: Path) -> None:
    assert "empty folder" in refusal(tmp_path) and str(tmp_path) in refusal(tmp_path)
    (tmp_path / "notes.md").write_text("hello")
    assert "notes.md" in refusal(tmp_path)
    assert "nothing there" in refusal(tmp_path / "absent")
    assert "found a file" in refusal(save(tmp_path / "a.png"))


@pytest.mark.parametrize(
    "content", [b"", b"not an image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40], ids=["empty", "text", "png"]
)
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(content)
    message = refusal(tmp_path)
    assert "b.png" in message and "expected" in message and "found" in message


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    assert "a.jpg" in refusal(tmp_path) and "damaged" in refusal(tmp_path)


def bomb(width: int, height: int) -> bytes:
    """A few hundred bytes of PNG that claim width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [11_400, 60_000])  # below and above the size at which Pillow itself refuses
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded a bomb"))
    message = refusal(tmp_path)
    assert "bomb.png" in message and f"{folder.MAX_PIXELS:,} pixels" in message and "scale it down" in message


def test_formats_pillow_cannot_read_are_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.HEIC").write_bytes(b"whatever")
    assert "b.HEIC" in refusal(tmp_path) and "convert" in refusal(tmp_path)


def test_an_unreadable_caption_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("ein Bär".encode("latin-1"))
    message = refusal(tmp_path)
    assert "a.txt" in message and "UTF-8" in message and "position 5" in message
    (tmp_path / "a.txt").write_bytes(b"x" * 100_000)
    assert "a.txt" in refusal(tmp_path) and "100,000" in refusal(tmp_path)
