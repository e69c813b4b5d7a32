"""Does `photopic guard serve` stand up to whatever is sent? Good, malformed, oversized and slow requests at once, on loopback.

    python -m benchmarks.guard.guard_serve                # ten minutes; writes benchmarks/results/guard-serve.json
    python -m benchmarks.guard.guard_serve --seconds 60   # shorter; prints only

The server is the command itself in a process of its own, around the bundled classifier `emoji-resnet-64-0` with both checks, fitted
on renderings the classifier never saw. Every answer is read and judged. A crash is: the server ends, answers 5xx, gives a good
request no decision, or does not finish a running request when it is asked to stop. A bad request counts as answered if its status
is 4xx and its JSON reason says what was expected and what was found. Resident memory is that of the server, every second; its
growth is the median of the last tenth over the median of the first tenth after the warm-up, which is a fifth of the time.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.harness.ledger import Row, write_result
from photopic.data import renderings
from photopic.serve.counts import resident_bytes

MODEL = "emoji-resnet-64-0"
CLEAN = 400  # pictures it is fitted on
SEND_SECONDS, MAX_BYTES, MAX_PIXELS = 2.0, 1_000_000, 4_000_000
FULL = 600.0
WARM_UP = 0.2
SEED = 0


@dataclass
class Seen:
    """What came back."""

    seconds: list[float] = field(default_factory=list)  # of good requests
    statuses: Counter[str] = field(default_factory=Counter)  # by kind and status
    bad: int = 0
    explained: int = 0  # of the bad
    failures: list[str] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, good: bool, status: int, content: bytes, seconds: float) -> None:
        """One answer."""
        with self.lock:
            self.statuses[f"{kind} {status}"] += 1
            if status >= 500 or (good and status != 200):
                self.failures.append(f"{kind}: {status}")
            if good:
                self.seconds.append(seconds)
            else:
                self.bad += 1
                reason = json.loads(content).get("reason", "") if content.startswith(b"{") else ""
                self.explained += 400 <= status < 500 and "expected" in reason and "found" in reason


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


def fitted(file: Path) -> np.ndarray:
    """Fit the guard, write it, and return the pictures to ask about."""
    from photopic.guard.guarded import guarded

    made = guarded(MODEL)
    pairs = np.random.default_rng(SEED).permutation(np.array(renderings.held_out_pairs()))
    clean = [(str(name), str(style)) for name, style in pairs[:CLEAN]]
    made.fit(renderings.pictures(clean), [made.model.labels.index(name) for name, _ in clean])
    made.save(file)
    return renderings.pictures([(str(name), str(style)) for name, style in pairs[CLEAN:]])


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


def kinds(pictures: np.ndarray) -> dict[str, tuple[bool, Callable[[int, np.random.Generator], tuple[int, bytes]]]]:
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


def send(
    kind: str, good: bool, ask: Callable[[int, np.random.Generator], tuple[int, bytes]], port: int, until: float, seen: Seen,
    seed: int, pause: float,
) -> None:  # fmt: skip
    """One sender, until the end."""
    rng = np.random.default_rng((SEED, seed))
    while time.monotonic() < until:
        begun = time.perf_counter()
        try:
            status, content = ask(port, rng)
        except Exception as error:  # no answer, or none that is HTTP
            with seen.lock:
                seen.failures.append(f"{kind}: {type(error).__name__} {error}"[:120])
                seen.bad += not good
            time.sleep(0.2)
            continue
        seen.note(kind, good, status, content, time.perf_counter() - begun)
        time.sleep(pause)


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise SystemExit(f"the server did not start: {process.poll()}")


def measure(seconds: float) -> tuple[Seen, float]:
    """Run the server under fire; what was seen, and when the warm-up ended."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        file, port = Path(folder) / "emoji.guard", free_port()
        sends = kinds(fitted(file))
        limits = {"max-bytes": MAX_BYTES, "max-pixels": MAX_PIXELS, "send-seconds": SEND_SECONDS}
        options = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
        verb = [sys.executable, "-c", "from photopic.cli.main import app; app()", "guard", "serve"]
        process = subprocess.Popen([*verb, str(file), "--port", str(port), *options])
        try:
            healthy(port, process)
            begun = time.monotonic()
            until = begun + seconds
            senders = [("good", 0.1), ("good", 0.1), ("form", 0.2), ("malformed", 0.1), ("oversized", 0.2)] + [
                ("slow", 0.0)
            ] * 4
            threads = [
                threading.Thread(target=send, args=(kind, *sends[kind], port, until, seen, number, pause))
                for number, (kind, pause) in enumerate(senders)
            ]
            for thread in threads:
                thread.start()
            while time.monotonic() < until and process.poll() is None:
                seen.resident.append((time.monotonic() - begun, resident_bytes(process.pid) or 0))
                time.sleep(1)
            for thread in threads:
                thread.join()
            stop(process, port, sends["good"][1], seen)
        finally:
            process.kill()
            process.wait()
    return seen, seconds * WARM_UP


def stop(
    process: subprocess.Popen[bytes],
    port: int,
    ask: Callable[[int, np.random.Generator], tuple[int, bytes]],
    seen: Seen,
) -> None:
    """SIGTERM while a sender is in the middle of its body: that request is still answered, and the process ends."""
    if process.poll() is not None:
        seen.failures.append(f"the server ended with {process.returncode}")
        return
    content = encoded(np.zeros((64, 64, 3), np.uint8), "PNG")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"POST /check HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:20])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(content[20:])
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            if answer.status != 200:
                seen.failures.append(f"stopping: {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            seen.failures.append(f"stopping: {type(error).__name__}")
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        seen.failures.append("stopping: still running after 60 s")


def rows(seen: Seen, seconds: float, warm: float) -> list[Row]:
    """The claims."""
    tenth = seconds / 10
    first = [size for moment, size in seen.resident if warm <= moment < warm + tenth]
    last = [size for moment, size in seen.resident if moment >= seconds - tenth]
    growth = median(last) / median(first) - 1
    after = [size for moment, size in seen.resident if moment >= warm]
    times = np.sort(seen.seconds)
    said = ", ".join(f"{kind}: {count}" for kind, count in sorted(seen.statuses.items()))
    good = len(times)
    failures = "; ".join(sorted(set(seen.failures))[:3])
    return [
        Row(
            "serve.crashes",
            len(seen.failures),
            target="== 0",
            n=sum(seen.statuses.values()),
            note=f"{seconds:.0f} s; answers by kind and status: {said}"
            + (f"; failures: {failures}" if failures else ""),
        ),
        Row(
            "serve.rss_growth",
            round(growth, 4),
            target="<= 0.05",
            n=len(after),
            note=f"last tenth over first tenth after {warm:.0f} s; {median(first) / 2**20:.0f} to {median(last) / 2**20:.0f} MiB, "
            f"between {min(after) / 2**20:.0f} and {max(after) / 2**20:.0f} MiB",
        ),
        Row(
            "serve.bad_requests_4xx",
            round(seen.explained / seen.bad, 6) if seen.bad else None,
            target="== 1",
            n=seen.bad or None,
            note="malformed, oversized and slow; with a reason that says what was expected and found",
        ),
        Row(
            "serve.p99_s",
            round(float(np.quantile(times, 0.99)), 4),
            unit="s",
            n=good,
            note=f"good requests under the mix, {good / seconds:.1f} a second from three senders; median "
            f"{float(np.median(times)):.3f} s, worst {times[-1]:.3f} s; load {os.getloadavg()[1]:.1f}",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=FULL, help=f"how long; anything but {FULL:.0f} only prints")
    seconds = parser.parse_args().seconds
    begun = time.perf_counter()
    seen, warm = measure(seconds)
    found = rows(seen, seconds, warm)
    for row in found:
        print(f"{row.claim}: {row.value} {row.unit} ({row.verdict}) {row.note}")
    if seconds == FULL:
        elapsed = time.perf_counter() - begun
        write_result(
            "guard-serve", found, command="python -m benchmarks.guard.guard_serve", seeds=[SEED], elapsed_s=elapsed
        )


if __name__ == "__main__":
    main()
