"""A folder of the user's images: it is read by the field's conventions, and bad input is one clear line."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.folder import PassedOverWarning, load_folder, load_mask, load_picture
from photopic.data.picture_file import MAX_PIXELS
from photopic.data.pixels import ORIENTATION


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
    for name in ("d.png", "c.jpg", "b.webp", "a.bmp", "e.GIF", "f.tiff", ".hidden.png"):
        save(tmp_path / name)
    found = load_folder(tmp_path, 16)
    assert found.names == ("a.bmp", "b.webp", "c.jpg", "d.png", "e.GIF", "f.tiff")
    assert found.images.shape == (6, 3, 16, 16) and len(found) == 6
    red = found.images.mean((2, 3))
    assert (red[:, 0] > 0.95).all() and (red[:, 1:] < -0.95).all()


def test_the_centre_is_cropped_not_squeezed(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_folder(tmp_path, 20).images == 1).all()


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
    assert "bomb.png" in message and f"{MAX_PIXELS:,} pixels" in message and "scale it down" in message


def test_files_that_are_passed_over_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "other.caption").write_text("a mug")
    (tmp_path / "more").mkdir()
    os.mkfifo(tmp_path / "b")
    (tmp_path / "c").symlink_to("nowhere")
    with pytest.warns(PassedOverWarning) as caught:
        assert load_folder(tmp_path, 16).names == ("a.png",)
    (warning,) = caught
    assert str(warning.message) == (
        f"{tmp_path}: passed over b (a pipe), c (a link that leads nowhere), more (a folder), notes.md, other.caption "
        "(a caption without its picture)"
    )


def dangling(place: Path) -> None:
    place.symlink_to("nowhere")


def circle(place: Path) -> None:
    place.symlink_to(place.name)


@pytest.mark.parametrize(
    ("make", "found"), [(os.mkfifo, "a pipe"), (dangling, "a link that leads nowhere"), (circle, "in a circle")]
)
@pytest.mark.parametrize("name", ["b.png", "a.txt"])
def test_pipes_and_broken_links_are_refused_and_never_waited_for(
    make: Callable[[Path], None], found: str, name: str, tmp_path: Path
) -> None:
    save(tmp_path / "a.png")
    make(tmp_path / name)
    assert f"{name}: expected a" in refusal(tmp_path) and found in refusal(tmp_path)
    with pytest.raises(DataError, match=found):
        load_picture(tmp_path / name, 16)
    circle(tmp_path / "folder")
    assert "found a link that leads in a circle" in refusal(tmp_path / "folder")


def test_a_mask_is_inside_where_it_is_light_and_opaque(tmp_path: Path) -> None:
    save(tmp_path / "p.png")
    painted = np.zeros((40, 40, 4), np.uint8)
    painted[:20, :20] = 255
    hidden = np.full((40, 40, 4), 255, np.uint8)  # white everywhere, seen in a quarter
    hidden[20:, :, 3] = hidden[:, 20:, 3] = 0
    grey = painted[..., 0].astype(np.uint16) * 257
    masks = {
        "rgba": painted,
        "hidden": hidden,
        "la": painted[..., [0, 3]],
        "bits16": grey,
        "bitmap": painted[..., 0] > 0,
    }
    for name, mask in masks.items():
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        found = load_mask(tmp_path / f"{name}.png", 16, of=tmp_path / "p.png")
        assert found[:8, :8].all() and found.mean() == 0.25, name


def test_masks_are_turned_as_their_pictures_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    save(tmp_path / "p.jpg", (40, 20), exif=exif)  # 20 wide and 40 high when upright
    upper = np.zeros((40, 20), np.uint8)
    upper[:20] = 255
    Image.fromarray(upper).save(tmp_path / "mask.png")
    found = load_mask(tmp_path / "mask.png", 16, of=tmp_path / "p.jpg")
    assert found[:8].all() and not found[8:].any()
    Image.new("L", (40, 20)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png: expected a mask of 20 x 40 pixels .* found 40 x 20"):
        load_mask(tmp_path / "mask.png", 16, of=tmp_path / "p.jpg")
