"""Pictures that were uploaded: decoded within the library's limits, kept as they came, by the hash of their bytes."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from photopic.core.errors import DataError, printable
from photopic.core.files import write_atomically
from photopic.data.picture_file import decode, kind_of
from photopic.data.pictures import SETTINGS_KEY
from photopic.data.pixels import as_rgb
from photopic.studio.refusals import Refused
from photopic.studio.workspace import Workspace

PICTURE_BYTES = 20 * 2**20
SIZES = (64, 128, 256, 512)  # of thumbnails
SHOWN = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}  # that every browser shows as they are
SETTINGS_CHARACTERS = 200_000


class Pictures:
    """The pictures of a workspace.

    Args:
        workspace: Where they are kept.
    """

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self._decoding = threading.Lock()  # the largest takes 384 MB decoded, so one at a time

    def add(self, name: str, content: bytes) -> dict[str, Any]:
        """Keep a picture.

        Args:
            name: What its file was called; shown and never a path.
            content: Its bytes.

        Returns:
            Its id, name, size in pixels, address, and the settings it carries or None.

        Raises:
            DataError: If it is no picture, damaged, or larger than the limits.
        """
        name = printable(name)[-120:] or "picture"
        if len(content) > PICTURE_BYTES:
            raise DataError(
                f"{name}: expected at most {PICTURE_BYTES:,} bytes, found {len(content):,}; save it smaller"
            )
        key = hashlib.sha256(content).hexdigest()[:32]
        path = self.workspace.uploaded("pictures", key)
        with self._decoding:
            image = decode(content, name)
            text = image.info.get(SETTINGS_KEY, "") if image.format == "PNG" else ""
            rgb = as_rgb(image, name)
            about = {"id": key, "name": name, "width": rgb.width, "height": rgb.height, "kind": kind_of(content)}
            _write(path.with_suffix(".jpg"), _small(rgb, 256))
            if about["kind"] not in SHOWN:
                _write(path.with_suffix(".png"), _png(rgb))
        _write(path, content)
        _write(path.with_suffix(".json"), json.dumps(about).encode())
        return {**about, "url": f"/api/pictures/{key}", "text": text if len(text) <= SETTINGS_CHARACTERS else ""}

    def about(self, key: str, *, field: str | None = None) -> dict[str, Any]:
        """What is known of a picture.

        Raises:
            Refused: If there is none.
        """
        path = self.workspace.uploaded("pictures", key, field=field).with_suffix(".json")
        if not path.is_file():
            raise Refused(404, f"picture: expected the id of an uploaded one, found {key}", field=field)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def path(self, key: str) -> Path:
        """The file of a picture as it came."""
        self.about(key)
        return self.workspace.uploaded("pictures", key)

    def shown(self, key: str, size: int | None = None) -> tuple[bytes, str]:
        """A picture as a browser shows it, and its type.

        Args:
            key: Its id.
            size: Of the longer side at most, one of ``SIZES``; None: as it is.

        Raises:
            Refused: If there is none, or none of that size.
        """
        about, path = self.about(key), self.workspace.uploaded("pictures", key)
        if size is None:
            kind = SHOWN.get(about["kind"])
            return (path.read_bytes(), kind) if kind else (path.with_suffix(".png").read_bytes(), "image/png")
        if size not in SIZES:
            raise Refused(400, f"size: expected one of {', '.join(map(str, SIZES))}, found {size}", field="size")
        if size == 256:
            return path.with_suffix(".jpg").read_bytes(), "image/jpeg"
        with self._decoding:
            return _small(as_rgb(decode(path.read_bytes(), about["name"])), size), "image/jpeg"


def crop(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """The part of an upright picture that a box names, (left, top, right, bottom) as shares of its sides; a pixel at least.

    Example:
        >>> crop(Image.new("RGB", (100, 50)), (0.5, 0.0, 1.0, 1.0)).size
        (50, 50)
    """
    left, top = (int(share * side) for share, side in zip(box[:2], image.size, strict=True))
    right, bottom = (round(share * side) for share, side in zip(box[2:], image.size, strict=True))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _small(image: Image.Image, size: int) -> bytes:
    image = image.copy()
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    if not path.is_file():  # the same bytes came before
        write_atomically(path, content)
