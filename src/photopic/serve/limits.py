"""From a request's body to a picture: every limit is checked before what it limits is paid for."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import warnings
from dataclasses import dataclass
from typing import Any

from PIL import Image
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from photopic.core.errors import DataError
from photopic.data.picture_file import kind_of
from photopic.data.pixels import as_rgb

READ = ("PNG", "JPEG", "WEBP")
EXPECTED = "expected one PNG, JPEG or WebP picture, as the body or as a file of multipart/form-data"
FORM_PARTS = 16
DRAINED = 4  # times the limit of a body: what is read of a refused one, so that its sender gets to read the reason


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        body_bytes: Of a body.
        pixels: Of a picture; read from its header.
        send_seconds: For a request's headers, and again for its body.
        answer_seconds: From there to the answer.
        requests: That wait for the worker, the one it works on included.
        connections: Open at a time.
    """

    body_bytes: int = 8 * 2**20
    pixels: int = 16_000_000
    send_seconds: float = 10.0
    answer_seconds: float = 30.0
    requests: int = 32
    connections: int = 128


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: Of HTTP.
        code: One word for the counts.
        reason: One line: what was expected and what was found.
        unread: Whether there may be more of its body on the way.
    """

    def __init__(self, status: int, code: str, reason: str, *, unread: bool = False):
        super().__init__(reason)
        self.status, self.code, self.reason, self.unread = status, code, reason, unread


class Gone(Exception):
    """The sender closed the connection before the request was complete."""


async def body_of(request: Request, limits: Limits) -> bytes:
    """Everything a request sends.

    Raises:
        Refusal: If it is larger or slower than the limits.
        Gone: If its sender leaves.
    """
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed) > limits.body_bytes:
        raise _too_large(limits, claimed)
    body, deadline = bytearray(), time.monotonic() + limits.send_seconds
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), deadline - time.monotonic())
        except TimeoutError:
            raise Refusal(
                408, "slow", f"expected the whole body within {limits.send_seconds:g} s, found {len(body)} bytes"
            ) from None
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if len(body) > limits.body_bytes:
            raise _too_large(limits, "more")
        if not message.get("more_body"):
            return bytes(body)


def _too_large(limits: Limits, found: str) -> Refusal:
    reason = f"expected a body of at most {limits.body_bytes} bytes, found {found[:20]}"
    return Refusal(413, "too_large", reason, unread=True)


def file_of(content_type: str, body: bytes) -> bytes:
    """The picture's file: the body, or the one file in it.

    Raises:
        Refusal: If the type is another, or there is not exactly one file.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        if kind and not kind.startswith("image/") and kind != "application/octet-stream":
            raise Refusal(415, "wrong_type", f"{EXPECTED}; found the content type {kind[:80]!r}")
        return body
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal(400, "multipart", f"{EXPECTED}; found a form without a boundary")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, "multipart", f"{EXPECTED}; found a form that cannot be read ({_line(error)})") from None
    if not form.complete or len(form.files) != 1:
        found = f"a form with {len(form.files)} files" if form.complete else "a form that breaks off"
        raise Refusal(400, "multipart", f"{EXPECTED}; found {found}")
    return bytes(form.files[0])


class _Form:
    """What a form holds, in memory; starlette's parser would open a temporary file for each."""

    def __init__(self) -> None:
        self.files: list[bytearray] = []
        self.complete = False
        self._parts = 0
        self._name, self._value, self._data = bytearray(), bytearray(), bytearray()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._part,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_end": lambda: setattr(self, "complete", True),
        }

    def _part(self) -> None:
        self._parts += 1
        self._data = bytearray()
        if self._parts > FORM_PARTS:
            raise Refusal(400, "multipart", f"{EXPECTED}; found a form of more than {FORM_PARTS} parts")

    def _header(self) -> None:
        if self._name.lower() == b"content-disposition" and b"filename" in parse_options_header(bytes(self._value))[1]:
            self.files.append(self._data)
        self._name, self._value = bytearray(), bytearray()


def picture_of(content: bytes, limits: Limits) -> Image.Image:
    """The upright picture in RGB, over white where it is transparent.

    Raises:
        Refusal: If it is empty, of another format, larger than the limit, animated or damaged.
    """
    if not content:
        raise Refusal(400, "empty", f"{EXPECTED}; found nothing")
    kind = kind_of(content)
    if kind not in READ:
        raise Refusal(415, "wrong_type", f"{EXPECTED}; found {kind}")
    size = size_of(content, kind)
    if size is None or 0 in size:
        raise Refusal(422, "damaged", f"{EXPECTED}; found a {kind} without a readable header")
    if size[0] * size[1] > limits.pixels:
        raise Refusal(
            413, "too_many_pixels", f"expected at most {limits.pixels} pixels, found a header of {size[0]} x {size[1]}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF blocks and palettes warn; the pixels decide
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=(kind,)) as image:
                if image.size != size:
                    raise Refusal(422, "damaged", f"{EXPECTED}; found a {kind} with two sizes")
                if kind != "JPEG" and getattr(image, "is_animated", False):
                    raise Refusal(422, "animated", f"{EXPECTED}; found an animation")
                image.load()
                return as_rgb(image, kind)
    except Refusal:
        raise
    except DataError as error:
        raise Refusal(422, "damaged", _line(error)) from None
    except Exception as error:  # Pillow's readers raise a dozen types on broken files
        raise Refusal(422, "damaged", f"{EXPECTED}; found a damaged {kind} ({_line(error)})") from None


def size_of(content: bytes, kind: str) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG, JPEG or WebP, before any decoder sees it; None: not readable.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (3, 2)).save(file, "WEBP")
        >>> size_of(file.getvalue(), "WEBP")
        (3, 2)
    """
    try:
        if kind == "PNG":
            return None if content[12:16] != b"IHDR" else struct.unpack(">II", content[16:24])
        return _jpeg_size(content) if kind == "JPEG" else _webp_size(content)
    except (struct.error, IndexError):
        return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    place = 2
    while place < len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD7 or marker == 1:  # filling, and markers without content
            place += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return width, height
        if marker in (0xD9, 0xDA):  # the end, or the pixels
            return None
        place += 2 + struct.unpack(">H", content[place + 2 : place + 4])[0]
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    chunk = content[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(content[place : place + 3], "little") for place in (24, 27))
        return (width + 1, height + 1) if len(content) >= 30 else None
    if chunk == b"VP8L" and content[20] == 0x2F:
        (packed,) = struct.unpack("<I", content[21:25])
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", content[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
