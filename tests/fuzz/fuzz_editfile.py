"""A coverage-guided mutation fuzzer for the reader of edit files.

Whatever the bytes, `photopic.core.edits.file.from_bytes` gives an edit that saves to the same bytes, or an `EditFileError` of one
line; each call within bounds of time and memory. Inputs that reach new lines of the reader are kept and mutated further.

    python tests/fuzz/fuzz_editfile.py --seconds 60
    python tests/fuzz/fuzz_editfile.py --count 1000000 --processes 2     # goes on where a stopped one was

Every finished batch is a line in ``<folder>/log.jsonl``, every input that fails a file in ``<folder>/failures``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

import photopic.core  # noqa: E402
from photopic.core.editfile import container  # noqa: E402
from photopic.core.editfile import content as reader  # noqa: E402
from photopic.core.edits.file import reading  # noqa: E402
from photopic.core.errors import EditFileError  # noqa: E402
from tests.fuzz.corpus import files  # noqa: E402

READER = {
    str(Path(photopic.core.__path__[0]) / f"{name}.py")
    for name in (
        "edits/activations edits/dense edits/edit edits/positions edits/sparse edits/token_rows numerics/int8_steps "
        "edits/part editfile/views editfile/container editfile/layouts editfile/coded_layouts editfile/value_codes "
        "editfile/content editfile/float16_code editfile/three_bits editfile/position_code edits/file/reading edits/file/parts "
        "editfile/indices".split()
    )
}
MOST_SECONDS = 5.0  # of processor time a call
MOST_BYTES = 1 << 30  # of address space beyond what the process has at the start
BATCH = 1000
MOST_KEPT = 2000
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    20,
    127,
    2**31,
    2**40,
    2**48,
    2**48 + 1,
    2**63,
    -(2**63),
    10**300,
    0.0,
    -0.0,
    1.0,
    0.5,
    1e308,
]
TEXTS = [
    "",
    "F32",
    "F16",
    "BF16",
    "U8",
    "shut",
    "values",
    "delta",
    "noise",
    "m.weight",
    "m.bias",
    "a\nb",
    "\ud800",
    "<x>",
    "=",
    "A" * 16,
]
Lines = set[tuple[str, int]]


class Fuzzer:
    """Mutates what it knows, reads the result, keeps what reaches new lines.

    Args:
        seed: Of everything random.
    """

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.seeds = list(files().values())
        self.kept: list[bytes] = []
        self.lines: Lines = set()
        self.refused = self.accepted = 0
        self.messages: set[str] = set()
        self.slowest_s = 0.0
        for content in self.seeds:
            self._read(content)
        assert self.accepted == len(self.seeds), "a file of the corpus is refused"
        self.accepted = 0

    def step(self) -> tuple[bytes, str]:
        """One mutated input and what is wrong with how it was read; empty if nothing is."""
        pool = self.kept if self.kept and self.random.random() < 0.5 else self.seeds
        content = mutated(self.random.choice(pool), self.random, self.seeds)
        before = len(self.lines)
        wrong = self._read(content)
        if len(self.lines) > before and len(self.kept) < MOST_KEPT:
            self.kept.append(content)
        return content, wrong

    def _read(self, content: bytes) -> str:
        started = time.process_time()
        try:
            with _traced(self.lines), _limited():
                edit = reading.from_bytes(content, "fuzzed")
            self.accepted += 1
            return "" if reading.to_bytes(edit) == content else "accepted, but it saves to other bytes"
        except EditFileError as error:
            self.refused += 1
            self.messages.add(str(error)[:40])
            return "" if "\n" not in str(error) else f"a message of more than one line: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self.slowest_s = max(self.slowest_s, time.process_time() - started)


def mutated(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to three changes of the bytes, of the metadata or of the data; behind the last two the checksum is right again."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        way = rng.random()
        content = _changed_inside(content, rng, way > 0.75) if way > 0.3 else _changed_bytes(content, rng, others)
    return content


def _changed_bytes(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    data = bytearray(content)
    way = rng.randrange(6)
    if way == 0 and data:
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 1:
        del data[rng.randrange(len(data) + 1) :]
    elif way == 2:
        other = rng.choice(others)
        data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other)) :]
    elif way == 3:
        at = rng.randrange(len(data) + 1)
        data[at:at] = rng.randbytes(rng.randrange(1, 16))
    elif way == 4:
        at = rng.randrange(len(data) + 1)
        del data[at : at + rng.randrange(1, 32)]
    else:
        data[:8] = struct.pack(
            "<Q", rng.choice([0, 1, len(data), max(0, len(data) - 8), 2**31, 2**63, rng.getrandbits(64)])
        )
    return bytes(data)


def _changed_inside(content: bytes, rng: random.Random, change_data: bool) -> bytes:
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        metadata, data = json.loads(header["__metadata__"]["photopic"]), content[8 + length :]
        if change_data:
            data = _changed_bytes(data, rng, [data or b"x"])
        else:
            metadata = _changed_json(metadata, rng)
        return sealed(header, metadata, data)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError, EditFileError):
        return _changed_bytes(content, rng, [content or b"x"])  # nothing is left of its form


def sealed(header: dict[str, Any], metadata: Any, data: bytes, *, fitting: bool = True) -> bytes:
    """A file whose checksum is right and, if wanted and where the metadata makes sense, whose header is the one it asks for."""
    metadata = {name: value for name, value in metadata.items() if name != "checksum"}
    metadata["checksum"] = reader._checksum(metadata, data)
    text = reader._canonical(metadata)
    try:
        if not fitting:
            raise ValueError
        container.check_metadata(metadata)
        tensors = [(row[0], tuple(row[1])) for row in metadata["tensors"]]
        expected = reader._stored_entries(reader._expected_entries(metadata["parts"], tensors), metadata["halves"])
        head = container.header(text, expected)
        if sum(entry.size_bytes for entry in expected.values()) > len(data) + (1 << 20):
            raise ValueError
    except Exception:  # the reader is given the same metadata and shows what is wrong with it, or with the reader
        rest = {name: entry for name, entry in header.items() if name != "__metadata__"}
        head = json.dumps({"__metadata__": {"photopic": text}} | rest, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def _changed_json(value: Any, rng: random.Random) -> Any:
    """One change somewhere: another value, one more, one less, two changed places."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {n: each for n, each in value.items() if n != name}
        if rng.random() < 0.05:
            return value | {rng.choice(TEXTS): _any_json(rng)}
        return value | {name: _changed_json(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at, way = rng.randrange(len(value)), rng.random()
        if way < 0.1:
            return value[:at] + value[at + 1 :]
        if way < 0.2:
            return [*value, value[at]]
        if way < 0.25:
            return value[::-1]
        return [*value[:at], _changed_json(value[at], rng), *value[at + 1 :]]
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice([-1, 1, 2, -2])
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(["", "A", "0", " ", "é"]) + value[at + 1 :]
    if type(value) is float and rng.random() < 0.5:
        return rng.choice([-value, value * 2, int(value)])
    return _any_json(rng)


def _any_json(rng: random.Random, depth: int = 0) -> Any:
    simple = [
        None,
        True,
        False,
        rng.choice(NUMBERS),
        rng.choice(TEXTS),
        rng.getrandbits(rng.randrange(1, 70)),
        rng.random(),
    ]
    if depth < 3 and rng.random() < 0.3:
        inner = [_any_json(rng, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.6 else {rng.choice(TEXTS): each for each in inner}
    if rng.random() < 0.01:
        deep: Any = []
        for _ in range(rng.choice([50, 300, 900, 930, 950, 970])):
            deep = [deep]
        return deep
    return rng.choice(simple)


@contextmanager
def _traced(lines: Lines) -> Iterator[None]:
    """Note the lines of the reader that run."""

    def on_line(frame: Any, event: str, _: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return on_line

    previous = sys.gettrace()
    sys.settrace(lambda frame, event, _: on_line if frame.f_code.co_filename in READER else None)
    try:
        yield
    finally:
        sys.settrace(previous)


@contextmanager
def _limited() -> Iterator[None]:
    """An error where a call takes too much processor time."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"more than {MOST_SECONDS} s of processor time")

    previous = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def limit_memory() -> None:
    """What a call allocates beyond the limit is a MemoryError, in this process for good."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def work(folder: Path, batches: list[int], seed: int, seconds: float, report: Callable[[str], None] = print) -> None:
    """Run batches, one line in the log each; what fails is kept in the folder."""
    limit_memory()
    fuzzer = Fuzzer(seed * 1_000_003 + (batches[0] if batches else 0))
    stop = time.monotonic() + seconds
    for batch in batches:
        if time.monotonic() > stop:
            return
        fuzzer.random.seed(f"{seed}:{batch}")
        refused, accepted, failed, started, count = fuzzer.refused, fuzzer.accepted, 0, time.monotonic(), 0
        while count < BATCH and time.monotonic() <= stop:
            content, wrong = fuzzer.step()
            count += 1
            if wrong:
                failed += 1
                name = hashlib.sha256(content).hexdigest()[:16]
                (folder / "failures").mkdir(exist_ok=True)
                (folder / "failures" / f"{name}.edit").write_bytes(content)
                report(f"{name}: {wrong[:300]}")
        row = {
            "seed": seed,
            "batch": batch,
            "count": count,
            "refused": fuzzer.refused - refused,
            "accepted": fuzzer.accepted - accepted,
            "failed": failed,
            "lines": len(fuzzer.lines),
            "slowest_s": round(fuzzer.slowest_s, 3),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "elapsed_s": round(time.monotonic() - started, 1),
        }
        with (folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> int:
    """Run until the count or the time is reached; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--count", type=int, default=None, help="mutations in all; a stopped run with the same seed goes on"
    )
    parser.add_argument("--seconds", type=float, default=None, help="stop after this long")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--seed", type=int, default=None, help="0 for --count, another one each time for --seconds alone"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "fuzz", help="for the log and what failed")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else 0 if given.count else time.time_ns() % 10**9
    count = given.count or (10**9 if given.seconds else 10_000)
    given.folder.mkdir(parents=True, exist_ok=True)
    done = {row["batch"] for row in rows_of(given.folder, seed) if row["count"] == BATCH}
    left = [batch for batch in range(-(-count // BATCH)) if batch not in done] if count < 10**9 else list(range(10**6))
    shares = [left[start :: given.processes] for start in range(given.processes)]
    context = multiprocessing.get_context("spawn")
    running = [
        context.Process(target=work, args=(given.folder, share, seed, given.seconds or float("inf")))
        for share in shares
        if share
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    rows = rows_of(given.folder, seed)
    print(json.dumps(summary(rows)))
    return int(any(row["failed"] for row in rows) or any(process.exitcode for process in running))


def rows_of(folder: Path, seed: int) -> list[dict[str, Any]]:
    """The log's lines of one seed."""
    path = folder / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["seed"] == seed]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All batches as one."""
    totals = {name: sum(row[name] for row in rows) for name in ("count", "refused", "accepted", "failed")}
    most = {name: max((row[name] for row in rows), default=0) for name in ("lines", "slowest_s", "peak_mb")}
    return totals | most | {"elapsed_s": round(sum(row["elapsed_s"] for row in rows), 1)}


if __name__ == "__main__":
    sys.exit(main())
