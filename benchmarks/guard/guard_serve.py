"""Does `photopic guard serve` stand up to whatever is sent? Good, malformed, oversized and slow requests at once, on loopback.

    python -m benchmarks guard-serve                # ten minutes; writes benchmarks/results/guard-serve.json

The server is the command itself in a process of its own, around the bundled classifier `emoji-resnet-64-0` with both checks, fitted
on renderings the classifier never saw. Every answer is read and judged. A crash is: the server ends, answers 5xx, gives a good
request no decision, or does not finish a running request when it is asked to stop. A bad request counts as answered if its status
is 4xx and its JSON reason says what was expected and what was found. Resident memory is that of the server, every second; its
growth is the median of the last tenth over the median of the first tenth after the warm-up, which is a fifth of the time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.guard.guard_requests import MAX_BYTES, Ask, encoded, kinds
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data import renderings
from photopic.serve.counts import resident_bytes

MODEL = "emoji-resnet-64-0"
CLEAN = 400  # pictures it is fitted on
SEND_SECONDS, MAX_PIXELS = 2.0, 4_000_000
WARM_UP = 0.2
SEED = 0
CLAIMS = (
    Claim("serve.crashes", "== 0"),
    Claim("serve.rss_growth", "<= 0.05", "last tenth over first tenth after the warm-up"),
    Claim(
        "serve.bad_requests_4xx",
        "== 1",
        "malformed, oversized and slow; with a reason that says what was expected and found",
    ),
    Claim("serve.p99_s", "", "good requests under the mix", "s"),
)


@dataclass(frozen=True)
class ServeConfig(Config):
    """How much is measured."""

    seconds: Annotated[int, Ge(10)] = 600  # under fire


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


def fitted(file: Path) -> np.ndarray:
    """Fit the guard, write it, and return the pictures to ask about."""
    from photopic.guard.guarded import guarded

    made = guarded(MODEL)
    pairs = np.random.default_rng(SEED).permutation(np.array(renderings.held_out_pairs()))
    clean = [(str(name), str(style)) for name, style in pairs[:CLEAN]]
    made.fit(renderings.pictures(clean), [made.model.labels.index(name) for name, _ in clean])
    made.save(file)
    return renderings.pictures([(str(name), str(style)) for name, style in pairs[CLEAN:]])


def send(
    kind: str, good: bool, ask: Ask, port: int, until: float, seen: Seen,
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
            stop(process, port, seen)
        finally:
            process.kill()
            process.wait()
    return seen, seconds * WARM_UP


def stop(process: subprocess.Popen[bytes], port: int, seen: Seen) -> None:
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


def rows(bench: Bench[ServeConfig, Any]) -> Iterator[Row]:
    """The claims."""
    seconds = float(bench.config.seconds)
    seen, warm = measure(seconds)
    said = ", ".join(f"{kind}: {count}" for kind, count in sorted(seen.statuses.items()))
    failures = "; ".join(sorted(set(seen.failures))[:3])
    note = f"{seconds:.0f} s; answers by kind and status: {said}" + (f"; failures: {failures}" if failures else "")
    yield row("serve.crashes", len(seen.failures), n=sum(seen.statuses.values()), note=note)
    first = [size for moment, size in seen.resident if warm <= moment < warm + seconds / 10]
    last = [size for moment, size in seen.resident if moment >= seconds - seconds / 10]
    after = [size for moment, size in seen.resident if moment >= warm]
    mib = [each / 2**20 for each in (median(first), median(last), min(after), max(after))]
    note = f"{warm:.0f} s of it; {mib[0]:.0f} to {mib[1]:.0f} MiB, between {mib[2]:.0f} and {mib[3]:.0f} MiB"
    yield row("serve.rss_growth", median(last) / median(first) - 1, n=len(after), note=note)
    yield row("serve.bad_requests_4xx", seen.explained / seen.bad if seen.bad else None, n=seen.bad or None)
    times = np.sort(seen.seconds)
    note = (
        f"{len(times) / seconds:.1f} a second from three senders; median {np.median(times):.3f} s, worst {times[-1]:.3f} s; load "
        f"{os.getloadavg()[1]:.1f}"
    )
    yield row("serve.p99_s", float(np.quantile(times, 0.99)), n=len(times), note=note)


BENCHMARKS = (Benchmark("guard-serve", __doc__, ServeConfig(), ServeConfig(60), CLAIMS, rows, seeds=(SEED,)),)
