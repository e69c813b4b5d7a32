"""What is sent to a guard under fire: good, malformed, oversized and slow requests."""

from __future__ import annotations

import http.client
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

MAX_BYTES = 1_000_000  # the server's limit
Ask = Callable[[int, np.random.Generator], tuple[int, bytes]]  # status and content, of a port


def encoded(image: np.ndarray, kind: str) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int, zeros: int = 100_000) -> bytes:
    """A small PNG whose header claims a large picture, with compressed zeros for pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(zeros)))
        + chunk(b"IEND", b"")
    )


def posted(port: int, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and content of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/check", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def slowly(port: int, rng: np.random.Generator) -> tuple[int, bytes]:
    """A request that comes byte by byte, in its headers or in its body, and is never complete."""
    start = b"POST /check HTTP/1.1\r\nHost: localhost\r\n"
    starts = (start, start + b"Content-Length: 5000\r\n\r\n", start + b"Transfer-Encoding: chunked\r\n\r\n")
    which = int(rng.integers(3))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(starts[which])
        connection.settimeout(0.1)
        until, received = time.monotonic() + 30, b""
        while b"}" not in received and time.monotonic() < until:
            try:
                received += connection.recv(4096)
            except TimeoutError:
                connection.sendall(b"1\r\na\r\n" if which == 2 else b"a")
    head, _, content = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), content


def kinds(pictures: np.ndarray) -> dict[str, tuple[bool, Ask]]:
    """What is sent, by name: whether it is good, and how."""
    large = encoded(np.random.default_rng(1).integers(0, 256, (500, 600, 3), np.uint8), "JPEG")

    def picture(rng: np.random.Generator) -> np.ndarray:
        found: np.ndarray = pictures[rng.integers(len(pictures))]
        return found

    def good(port: int, rng: np.random.Generator) -> tuple[int, bytes]:
        content = encoded(picture(rng), ("PNG", "JPEG", "WEBP")[rng.integers(3)])
        return posted(port, content if rng.random() < 0.9 else large)

    def form(port: int, rng: np.random.Generator) -> tuple[int, bytes]:
        part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + encoded(picture(rng), "PNG")
        return posted(port, part + b"\r\n--x--\r\n", {"content-type": "multipart/form-data; boundary=x"})

    def malformed(port: int, rng: np.random.Generator) -> tuple[int, bytes]:
        content = encoded(picture(rng), ("PNG", "JPEG", "WEBP")[rng.integers(3)])
        which = int(rng.integers(7))
        if which == 0:
            return posted(port, content[: int(len(content) * rng.uniform(0.01, 0.8))])
        if which == 1:
            return posted(port, b"")
        if which == 2:
            return posted(port, rng.bytes(int(rng.integers(1, 5000))))
        if which == 3:
            return posted(port, content, {"content-type": "text/html"})
        if which == 4:
            return posted(port, content, {"content-type": "multipart/form-data; boundary=x"})
        if which == 5:
            return posted(port, encoded(picture(rng), "GIF"))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(rng.bytes(300).replace(b"\n", b"") + b"\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()

    def oversized(port: int, rng: np.random.Generator) -> tuple[int, bytes]:
        which = int(rng.integers(3))
        if which == 0:
            return posted(port, bytes(int(rng.integers(MAX_BYTES + 1, 3 * MAX_BYTES))))
        side = int(rng.integers(2_100, 60_000))
        return posted(port, bomb(side, side if which == 1 else 2_100))

    return {
        "good": (True, good),
        "form": (True, form),
        "malformed": (False, malformed),
        "oversized": (False, oversized),
        "slow": (False, slowly),
    }
