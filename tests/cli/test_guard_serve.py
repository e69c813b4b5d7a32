"""The guard behind HTTP, on a real uvicorn on loopback: good pictures are answered, everything else gets a 4xx with a reason."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.guard.guard_requests import bomb
from photopic.cli.guard_serve import check_guard, fitted, server
from photopic.core.errors import PhotopicError
from photopic.guard.guarded import GuardedModel
from photopic.guard.guarded import guarded as guard
from photopic.guard.scaling_consistency import ScalingConsistencyConfig
from photopic.serve.limits import Limits, Refusal, picture_of, size_of
from tests.guard.test_scaling_consistency import pictures, predicted, resnet

LIMITS = Limits(body_bytes=20_000, pixels=10_000, send_seconds=0.8, answer_seconds=20.0, requests=4, connections=8)


def file_of(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


PICTURE = pictures(1)[0]
PNG = file_of(PICTURE)


def form(*files: bytes, name: str = 'name="file"; filename="a.png"') -> tuple[bytes, dict[str, str]]:
    parts = [b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), file) for file in files]
    return b"".join(parts) + b"--xyz--\r\n", {"content-type": "multipart/form-data; boundary=xyz"}


@dataclass
class Service:
    """A running server."""

    guarded: GuardedModel
    uvicorn: Any
    thread: threading.Thread
    port: int

    def ask(
        self, body: bytes | None = None, headers: dict[str, str] | None = None, *, to: str = "POST /check"
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON or text, headers."""
        method, path = to.split()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        found = {key.lower(): value for key, value in answer.getheaders()}
        return answer.status, json.loads(content) if "json" in found["content-type"] else content.decode(), found

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def count(self, pattern: str) -> float:
        found = re.search("^" + pattern + r" (\S+)$", self.ask(to="GET /metrics")[1], re.M)
        return float(found[1]) if found else 0.0


def started(guarded: GuardedModel, limits: Limits = LIMITS) -> Service:
    uvicorn = server(guarded, limits, host="127.0.0.1", port=0)
    uvicorn.config.log_config = None
    thread = threading.Thread(target=uvicorn.run, daemon=True)  # a failing test must not keep the process
    thread.start()
    while not uvicorn.started:
        assert thread.is_alive()
        time.sleep(0.02)
    return Service(guarded, uvicorn, thread, uvicorn.servers[0].sockets[0].getsockname()[1])


@pytest.fixture(scope="module")
def guarded() -> GuardedModel:
    model, images = resnet(), pictures(60)
    wall = ScalingConsistencyConfig(error_bound=0.3, false_positive_rate=0.1)
    return guard(model, backdoor=wall, open_set=True).fit(images, predicted(model, images))


@pytest.fixture(scope="module")
def running(guarded: GuardedModel) -> Iterator[Service]:
    found = started(guarded)
    yield found
    found.uvicorn.should_exit = True
    found.thread.join(20)
    assert not found.thread.is_alive()


def refused(answer: tuple[int, Any, dict[str, str]], status: int, *words: str) -> None:
    """A JSON reason that says what was expected and what was found."""
    assert answer[0] == status and set(answer[1]) == {"error", "reason"}, answer
    for word in ("expected", "found", *words):
        assert word in answer[1]["reason"], answer


# --- good requests


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_answer_is_that_of_the_guard(running: Service, kind: str) -> None:
    content = file_of(PICTURE, kind)
    (expected,) = running.guarded([Image.open(io.BytesIO(content)).convert("RGB")])
    for body, headers in ((content, {}), (content, {"content-type": f"image/{kind.lower()}"}), form(content)):
        status, answer, _ = running.ask(body, headers)
        assert status == 200, answer
        assert (answer["accepted"], answer["label"]) == (expected.verdict.accepted, expected.label)
        assert answer["reason"] == expected.verdict.reason and answer["probability"] == pytest.approx(
            expected.probability
        )
        assert answer["expected_false_positive_rate"] == running.guarded.expected_false_positive_rate
        assert set(running.guarded.checks) <= set(answer)


def test_pictures_of_other_modes_and_turned_ones_are_read(running: Service) -> None:
    clear = file_of(Image.new("RGBA", (5, 9), (255, 0, 0, 0)))
    assert running.ask(clear)[0] == 200
    assert np.asarray(picture_of(clear, LIMITS)).min() == 255  # over white
    turned = Image.new("RGB", (20, 10))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert picture_of(file_of(turned, "JPEG", exif=exif), LIMITS).size == (10, 20)
    for mode in ("L", "P", "1", "CMYK"):
        assert picture_of(file_of(Image.new(mode, (7, 5)), "JPEG" if mode == "CMYK" else "PNG"), LIMITS).mode == "RGB"


def test_health_and_metrics_say_how_it_does(running: Service) -> None:
    status, health, _ = running.ask(to="GET /health")
    assert status == 200 and health["status"] == "ok" and health["model"] == "model"
    assert health["checks"] == ["scaling_consistency", "open_set"] and health["caveats"]
    before = running.count("photopic_guard_seconds_count"), running.count(r".*refusals_total\{.*\"empty\"\}")
    assert running.ask(PNG)[0] == 200 and running.ask(b"")[0] == 400
    after = running.count("photopic_guard_seconds_count"), running.count(r".*refusals_total\{.*\"empty\"\}")
    assert after == (before[0] + 1, before[1] + 1)
    assert running.count("process_resident_memory_bytes") > 1e7
    decided = sum(
        running.count(rf'photopic_guard_requests_total\{{outcome="{each}"\}}') for each in ("accepted", "rejected")
    )
    assert decided == after[0] == running.count(r'photopic_guard_seconds_bucket\{le="\+Inf"\}')


# --- bad pictures


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and has one compressed kilobyte of zeros."""
    return bomb(width, height, zeros=1_000_000)


def webp_of(width: int, height: int) -> bytes:
    size = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:])


BAD = {
    "empty": (b"", 400, "nothing"),
    "text": (b"hello", 415, "an unknown format"),
    "gif": (file_of(PICTURE, "GIF"), 415, "GIF"),
    "json": (b'{"image": 1}', 415, "JSON"),
    "cut": (PNG[:-200], 422, "damaged PNG"),
    "cut jpeg": (file_of(PICTURE, "JPEG")[:-150], 422, "damaged JPEG"),
    "cut webp": (file_of(PICTURE, "WEBP")[:-50], 422, "damaged WEBP"),
    "only a signature": (PNG[:8], 422, "header"),
    "noise after the header": (PNG[:40] + bytes(200), 422, "damaged"),
    "jpeg without a frame": (b"\xff\xd8\xff\xd9", 422, "header"),
    "no pixels": (png_of(0, 5), 422, "header"),
    "bomb": (png_of(100_000, 100_000), 413, "100000 x 100000"),
    "webp bomb": (webp_of(16_383, 16_383), 413, "16383 x 16383"),
    "just too many pixels": (png_of(101, 100), 413, "10000 pixels"),
    "animation": (animated("PNG"), 422, "animation"),
    "webp animation": (animated("WEBP"), 422, "animation"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_refused_with_a_reason(running: Service, name: str) -> None:
    body, status, words = BAD[name]
    refused(running.ask(body), status, words)


def test_a_bomb_costs_no_decoding() -> None:
    started = time.thread_time()
    for content in (png_of(60_000, 60_000), webp_of(16_000, 16_000)):
        with pytest.raises(Refusal, match="at most 10000 pixels"):
            picture_of(content, LIMITS)
    assert time.thread_time() - started < 1


def test_sizes_are_read_from_headers_as_pillow_reads_them() -> None:
    for kind, options in (
        ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),
    ):  # fmt: skip
        for size in ((1, 1), (31, 7), (300, 2)):
            assert size_of(file_of(Image.new("RGB", size), kind, **options), kind) == size


def test_damage_anywhere_in_a_header_is_a_refusal_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP"):
        content = np.frombuffer(file_of(PICTURE, kind), np.uint8)
        for _ in range(150):
            damaged = content.copy()
            damaged[rng.integers(min(120, len(content)), size=3)] = rng.integers(256, size=3)
            try:
                assert picture_of(damaged.tobytes(), LIMITS).mode == "RGB"
            except Refusal as refusal:
                assert refusal.status in (413, 415, 422) and "expected" in refusal.reason


# --- bad requests


def test_a_bad_form_is_refused(running: Service) -> None:
    refused(running.ask(*form()), 400, "form")
    refused(running.ask(*form(PNG, PNG)), 400, "2 files")
    refused(running.ask(*form(b"x", name='name="a"')), 400, "0 files")
    body, headers = form(PNG)
    refused(running.ask(body[: len(body) // 2], headers), 400, "breaks off")
    refused(running.ask(body[10:], headers), 400, "cannot be read")
    refused(running.ask(*form(*[PNG[:9]] * 20)), 400, "more than 16 parts")
    refused(running.ask(*form(PNG, name='name="a"' + "\r\na: b" * 20)), 400, "cannot be read")
    refused(running.ask(body, {"content-type": "multipart/form-data"}), 400, "boundary")
    refused(running.ask(*form(b"")), 400, "nothing")


def test_other_types_paths_and_methods_are_refused(running: Service) -> None:
    refused(running.ask(b"{}", {"content-type": "application/json"}), 415, "application/json")
    refused(running.ask(to="GET /elsewhere"), 404, "POST /check", "GET /elsewhere")
    refused(running.ask(to="GET /check"), 405, "GET /check")


def test_a_body_over_the_limit_is_refused_and_its_sender_reads_why(running: Service) -> None:
    refused(running.ask(bytes(50_000)), 413, "20000 bytes", "50000")
    chunks = (bytes(1000) for _ in range(70))
    refused(running.ask(chunks), 413, "found more")  # type: ignore[arg-type]


def test_a_sender_that_reads_late_still_reads_why_its_body_was_refused(running: Service) -> None:
    connection = running.open()
    connection.sendall(b"POST /check HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n")
    for size in (1000, 30_000, 39_000):
        time.sleep(0.2)
        connection.sendall(bytes(size))
    refused(read(connection), 413, "70000")
    connection.close()


def read(connection: socket.socket) -> tuple[int, Any, dict[str, str]]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    headers = {key.lower(): value for key, value in answer.getheaders()}
    return answer.status, json.loads(answer.read()), headers


SLOW = {
    "headers": b"POST /check HTTP/1.1\r\nHost: a\r\nX: ",
    "body": b"POST /check HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n",
    "chunks": b"POST /check HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("part", SLOW)
def test_a_slow_sender_is_told_and_left(running: Service, part: str) -> None:
    connection = running.open()
    connection.sendall(SLOW[part])
    begun = time.monotonic()
    for _ in range(3):
        time.sleep(0.1)
        if part != "nothing":
            connection.sendall(b"1\r\na\r\n" if part == "chunks" else b"a")
    refused(read(connection), 408, "0.8 s")
    assert time.monotonic() - begun < 5
    assert connection.recv(1) == b""  # closed
    connection.close()


def test_a_second_slow_request_on_a_connection_has_a_deadline_too(running: Service) -> None:
    connection = running.open()
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert read(connection)[0] == 200
    connection.sendall(b"GET /hea")
    refused(read(connection), 408, "headers")
    connection.close()


@pytest.mark.parametrize(
    "text",
    [b"hello\r\n\r\n", b"POST /check HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000,
     b"POST /check HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"],
    ids=["no http", "long headers", "bad chunk"],
)  # fmt: skip
def test_what_is_not_http_gets_a_reason_too(running: Service, text: bytes) -> None:
    connection = running.open()
    connection.sendall(text)
    refused(read(connection), 400, "HTTP/1.1")
    connection.close()
    assert running.ask(PNG)[0] == 200


def test_a_sender_that_leaves_is_counted_and_nothing_more(running: Service) -> None:
    pattern = r'photopic_guard_requests_total\{outcome="gone"\}'
    before = running.count(pattern)
    connection = running.open()
    connection.sendall(SLOW["body"] + b"abc")
    time.sleep(0.1)
    connection.close()
    until = time.monotonic() + 5
    while running.count(pattern) == before and time.monotonic() < until:
        time.sleep(0.05)
    assert running.count(pattern) == before + 1


def test_nothing_of_a_picture_is_logged(running: Service, caplog: pytest.LogCaptureFixture) -> None:
    secret = b"a-secret-in-a-picture"
    with caplog.at_level(0):
        for content in (b"\x89PNG\r\n\x1a\n" + secret, PNG[:60] + secret, secret):
            assert running.ask(content)[0] in (415, 422)
        assert running.ask(secret, form()[1])[0] == 400
    assert secret.decode() not in caplog.text
    assert not [each for each in caplog.records if each.levelno > logging.INFO and not each.name.startswith("uvicorn")]


# --- many at a time, and the end


class Held:
    """Keeps the worker busy by the guard's own lock."""

    def __init__(self, guarded: GuardedModel):
        self.release, ready = threading.Event(), threading.Event()

        def hold() -> None:
            with guarded.lock:
                ready.set()
                self.release.wait(20)

        self.thread = threading.Thread(target=hold)
        self.thread.start()
        ready.wait()

    def let_go(self) -> None:
        self.release.set()
        self.thread.join()


def in_background(running: Service, times: int, *, until_waiting: int) -> tuple[list[threading.Thread], list[int]]:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(running.ask(PNG)[0])) for _ in range(times)]
    for thread in threads:
        thread.start()
    time.sleep(0.1 * until_waiting)
    return threads, found


def test_more_requests_than_may_wait_are_told_to_come_back(running: Service) -> None:
    held = Held(running.guarded)
    threads, found = in_background(running, LIMITS.requests, until_waiting=4)
    answer = running.ask(PNG)
    held.let_go()
    for thread in threads:
        thread.join()
    refused(answer, 503, "4 requests")
    assert answer[2]["retry-after"] == "1"
    assert found == [200] * LIMITS.requests
    assert running.ask(PNG)[0] == 200


def test_more_connections_than_may_be_open_are_told_to_come_back(running: Service) -> None:
    open_ones = [running.open() for _ in range(LIMITS.connections)]
    time.sleep(0.1)
    extra = running.open()
    answer = read(extra)
    for connection in (*open_ones, extra):
        connection.close()
    refused(answer, 503, "8 connections")
    assert answer[2]["retry-after"] == "1"


def test_a_full_queue_answers_in_time(guarded: GuardedModel) -> None:
    running = started(guarded, Limits(answer_seconds=1.5))
    held = Held(guarded)
    answer = running.ask(PNG)
    held.let_go()
    refused(answer, 503, "within 1.5 s")
    until = time.monotonic() + 30
    while running.ask(PNG)[0] != 200:  # a busy machine may be slow
        assert time.monotonic() < until
    running.uvicorn.should_exit = True
    running.thread.join(20)


def test_many_at_a_time_get_what_one_gets(guarded: GuardedModel) -> None:
    running = started(guarded, Limits())
    expected = running.ask(PNG)[:2]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(running.ask(PNG)[:2])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 12
    running.uvicorn.should_exit = True
    running.thread.join(20)


def test_a_shutdown_finishes_what_is_running(guarded: GuardedModel) -> None:
    running = started(guarded)
    held = Held(guarded)
    threads, found = in_background(running, 2, until_waiting=4)
    running.uvicorn.should_exit = True
    time.sleep(0.4)
    with pytest.raises(OSError):
        running.open().close()
    assert running.thread.is_alive()
    held.let_go()
    for thread in (*threads, running.thread):
        thread.join(20)
    assert found == [200, 200] and not running.thread.is_alive()


def test_the_model_is_the_same_after_all_that(running: Service) -> None:
    assert running.guarded.model.digest() == resnet().digest()


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Any) -> None:
    with pytest.raises(PhotopicError, match="to fit one now give --clean"):
        check_guard("nowhere.guard", None)
    with pytest.raises(PhotopicError, match="leave one out"):
        fitted("a", "b", tmp_path, "cpu")
