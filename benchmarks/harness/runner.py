"""The command line of a benchmark whose slow part is shared by worker processes that keep what they make.

``--part i/n`` makes a process a worker; the process without it starts the workers, waits, and reads all rows from what they kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from benchmarks.harness.cache import Kept
from benchmarks.harness.ledger import ROOT, Row, write_result
from benchmarks.harness.subjects import Bench
from photopic.models.dual_encoder import DualEncoder

S = TypeVar("S")
H = TypeVar("H")


class Keeping(Protocol):
    """What a benchmark works with: anything that keeps results."""

    @property
    def kept(self) -> Kept:
        """They."""


@dataclass(frozen=True)
class Handle(Generic[H]):
    """A model with what is kept of its results."""

    model: H
    kept: Kept


def dual_encoder(folder: str, name: str) -> Handle[DualEncoder]:
    """A dual encoder and what ``runs/<folder>`` keeps of it."""
    model = DualEncoder.load(name)
    return Handle(model, Kept(ROOT / "runs" / folder / model.digest()[:12]))


@dataclass(frozen=True)
class Benchmark(Generic[S]):
    """One benchmark.

    Attributes:
        name: Of its result file.
        script: Its file, ``__file__``.
        about: Its docstring.
        full: How much is measured.
        quick: The same for ``--quick``.
        work: A worker's share of everything slow, from a part such as ``0/2``.
        rows: All claims, from what the workers kept.
        seeds: Every seed used, of the full settings.
        code: Reads the code that decides its measurements: once, before the workers start, so that a file that is edited
            meanwhile changes no key.
        open: Makes what ``work`` and ``rows`` get, from the value of ``--model``.
        model: That value where none is given; with another the benchmark only prints.
    """

    name: str
    script: str
    about: str
    full: S
    quick: S
    work: Callable[[Any, S, str], None]
    rows: Callable[[Any, S], list[Row]]
    seeds: Sequence[int]
    code: Callable[[], object]
    open: Callable[[str], Keeping] = Bench
    model: str = "emoji-diffusion"


def run(benchmark: Benchmark[Any], arguments: Sequence[str] | None = None) -> None:
    """Be the main process or a worker, as the command line says; only the full benchmark of its own model writes."""
    parser = argparse.ArgumentParser(description=benchmark.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small part of it; prints only")
    parser.add_argument("--model", default=benchmark.model, help="a bundled name or a folder; another only prints")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    settings = benchmark.quick if options.quick else benchmark.full
    benchmark.code()
    torch.set_num_threads(1)
    bench = benchmark.open(options.model)
    if options.part:
        benchmark.work(bench, settings, options.part)
        return
    passed = ["--model", options.model, *(["--quick"] if options.quick else [])]
    in_parallel(benchmark.script, passed, options.workers)
    began = time.monotonic()
    rows = benchmark.rows(bench, settings)
    elapsed = bench.kept.seconds + time.monotonic() - began - bench.kept.made_s
    for row in rows:
        print(line_of(row))
    print(f"{elapsed:.0f} s of work, {bench.kept.seconds:.0f} s of it kept")
    if not options.quick and options.model == benchmark.model:
        command = f"python -m {module_of(benchmark.script)}"
        path = write_result(benchmark.name, rows, command=command, seeds=benchmark.seeds, elapsed_s=elapsed)
        print(path.name)


def line_of(row: Row) -> str:
    """A row as one line of text."""
    value = "    none" if row.value is None else f"{row.value:10.4f}"
    interval = "" if row.low is None else f"[{row.low}, {row.high}]"
    beside = "".join(f" {name} {number}" for name, number in (("baseline", row.baseline), ("control", row.control))
                     if number is not None)  # fmt: skip
    return f"{row.claim:38} {value} {interval} {row.target or ''} {row.verdict}{beside}  n={row.n}  {row.note}"


def module_of(script: str) -> str:
    """The dotted name by which a benchmark is started from the root of the repository."""
    return ".".join(Path(script).resolve().relative_to(ROOT).with_suffix("").parts)


def in_parallel(script: str, arguments: Sequence[str], workers: int) -> None:
    """Run ``script --part i/n`` for every i at once, one torch thread each, and wait; a failure stops the benchmark."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # benchmarks import each other
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    running = [
        subprocess.Popen([sys.executable, script, *arguments, "--part", f"{index}/{workers}"], env=environment)
        for index in range(workers)
    ]
    try:
        failed = [process.args for process in running if process.wait()]
    finally:
        for process in running:
            process.terminate()
    if failed:
        sys.exit(f"a worker failed: {failed[0]!r}; run again to go on from what is done")


def mine(items: Sequence[Any], part: str) -> list[Any]:
    """The share of a worker: every n-th item."""
    index, count = map(int, part.split("/"))
    return list(items)[index::count]
