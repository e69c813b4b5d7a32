"""What a benchmark is, and how one is run: arguments, workers, resuming, progress, the printed rows and the stored result.

    python -m benchmarks layout                  # measures and stores benchmarks/results/layout.json
    python -m benchmarks layout --quick          # a small part of it; prints only, as every run but the full one does
    python -m benchmarks layout --cases 8        # other settings; prints only
    python -m benchmarks layout --rows-only      # from what earlier runs kept; measures nothing

Interrupted, it goes on from what is kept under ``runs/<folder>``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from benchmarks.harness.arguments import Options, options_of
from benchmarks.harness.cache import NotMeasured, ResultCache
from benchmarks.harness.claims import Claim, declared, over_seeds, paired, row, share
from benchmarks.harness.code import code_of
from benchmarks.harness.ledger import ROOT, Row, write_result

__all__ = ["Bench", "Benchmark", "Claim", "Row", "over_seeds", "paired", "row", "share"]  # what a benchmark imports
C = TypeVar("C")
S = TypeVar("S")


def nothing(*_: Any) -> Any:
    """What a benchmark opens that needs no model, and does at the end that writes only its result."""


@dataclass(frozen=True)
class Benchmark(Generic[C, S]):
    """One benchmark.

    Attributes:
        name: Of its result file and on the command line.
        about: Its docstring.
        config: How much is measured, a frozen dataclass; its fields are the options of the command line.
        quick: The same for ``--quick``.
        claims: All it claims.
        rows: What was measured for the claims; asks ``Bench.found`` for the slow part.
        cases: The slow part in pieces that workers share; each holds all that decides its result.
        measure: The result of a case, as JSON.
        open: What is measured, such as a model, from the config and what is kept; called when it is first asked for.
        together: A label of each case; cases of one label are one worker's, in order. None: each case alone.
        seeds: Every seed used with the full config.
        folder: Where results are kept below ``runs``; the name by default.
        threads: Of torch in each process; 0 leaves them as they are.
        finish: What a stored run writes besides: pictures and pages of the docs.
    """

    name: str
    about: str
    config: C
    quick: C
    claims: Sequence[Claim]
    rows: Callable[[Bench[C, S]], Iterable[Row]]
    cases: Callable[[C], Sequence[Any]] = nothing
    measure: Callable[[Bench[C, S], Any], Any] = nothing
    open: Callable[[C, ResultCache], S] = nothing
    together: Callable[[Any], Any] | None = None
    seeds: Sequence[int] = (0,)
    folder: str = ""
    threads: int = 1
    finish: Callable[[Bench[C, S], Sequence[Row]], object] = nothing


class Bench(Generic[C, S]):
    """A benchmark at work.

    Attributes:
        config: How much is measured.
        cache: What is kept of results.
    """

    def __init__(
        self, benchmark: Benchmark[C, S], config: C, *, cache: ResultCache | None = None, only_reads: bool = False
    ):
        self.benchmark, self.config = benchmark, config
        self.cache = cache or ResultCache(ROOT / "runs" / (benchmark.folder or benchmark.name), only_reads=only_reads)
        # read at once: a file that is edited while the benchmark runs changes no key
        self.code = "" if benchmark.measure is nothing else code_of(benchmark.measure)

    @cached_property
    def subject(self) -> S:
        """What is measured."""
        return self.benchmark.open(self.config, self.cache)

    @cached_property
    def cases(self) -> Sequence[Any]:
        """The slow part in pieces."""
        return self.benchmark.cases(self.config) or ()

    @cached_property
    def digest(self) -> str:
        """What tells one subject from another; empty for one that has no digest."""
        digest = getattr(self.subject, "digest", "")
        return str(digest() if callable(digest) else digest)

    def found(self, case: Any) -> Any:
        """The result of a case, measured if it is not kept."""
        return self.value({"case": case}, lambda: self.benchmark.measure(self, case))

    def value(self, key: dict[str, Any], make: Callable[[], Any]) -> Any:
        """Any other result, of this benchmark's subject and code."""
        return self.cache.value({"benchmark": self.benchmark.name, "of": self.digest, "code": self.code} | key, make)

    def array(self, key: dict[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The same of an array."""
        return self.cache.array({"benchmark": self.benchmark.name, "of": self.digest, "code": self.code} | key, make)

    def work(self, part: str) -> None:
        """Measure a worker's share of the cases, and say how far it is."""
        together = self.benchmark.together
        labels = [together(case) for case in self.cases] if together else list(range(len(self.cases)))
        labelled = set(mine(list(dict.fromkeys(labels)), part))
        own = [case for case, label in zip(self.cases, labels, strict=True) if label in labelled]
        for number, case in enumerate(own, 1):
            began = time.monotonic()
            self.found(case)
            print(f"{_said(case)}: {number} of {len(own)}, {time.monotonic() - began:.0f} s", flush=True)


def run(benchmark: Benchmark[Any, Any], arguments: Sequence[str]) -> list[Row]:
    """Be the main process or a worker, as the arguments say; returns the rows, of a worker none."""
    options = options_of(benchmark.name, benchmark.about, benchmark.config, benchmark.quick, arguments)
    if benchmark.threads:
        torch.set_num_threads(benchmark.threads)
    bench: Bench[Any, Any] = Bench(benchmark, options.config, only_reads=options.rows_only)
    if options.part:
        bench.work(options.part)
        return []
    if bench.cases and not options.rows_only:
        if options.workers:
            in_parallel(benchmark.name, arguments, options.workers)
        else:
            bench.work("0/1")
    began, made_before = time.monotonic(), bench.cache.made_s
    rows = []
    try:
        for each in declared(benchmark.rows(bench), benchmark.claims):
            print(line_of(each), flush=True)
            rows.append(each)
    except NotMeasured:
        sys.exit(f"{benchmark.name}: not all is kept for these settings and this code; run without --rows-only")
    elapsed = bench.cache.seconds + time.monotonic() - began - (bench.cache.made_s - made_before)
    print(f"{elapsed:.0f} s of work, {bench.cache.seconds:.0f} s of it kept")
    if options.config == benchmark.config:
        _store(bench, rows, options, elapsed)
    return rows


def _store(bench: Bench[Any, Any], rows: Sequence[Row], options: Options, elapsed: float) -> None:
    benchmark = bench.benchmark
    command = f"python -m benchmarks {benchmark.name}{' --rows-only' if options.rows_only else ''}"
    path = write_result(benchmark.name, rows, command=command, seeds=benchmark.seeds, elapsed_s=elapsed)
    print(path.name)
    benchmark.finish(bench, rows)


def in_parallel(name: str, arguments: Sequence[str], workers: int) -> None:
    """Run a benchmark's workers at once, one torch thread each, and wait; a failure stops the benchmark."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "benchmarks", name, *arguments]
    running = [
        subprocess.Popen([*command, "--part", f"{index}/{workers}"], env=environment, cwd=ROOT)
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
    """The share of a worker: every n-th item.

    Example:
        >>> mine("abcde", "1/2")
        ['b', 'd']
    """
    index, count = map(int, part.split("/"))
    return list(items)[index::count]


def line_of(row: Row) -> str:
    """A row as one line of text."""
    value = "    none" if row.value is None else f"{row.value:10.4f}"
    interval = "" if row.low is None else f"[{row.low}, {row.high}]"
    beside = "".join(f" {name} {number}" for name, number in (("baseline", row.baseline), ("control", row.control))
                     if number is not None)  # fmt: skip
    return f"{row.claim:38} {value} {interval} {row.target or ''} {row.verdict}{beside}  n={row.n}  {row.note}"


def _said(case: Any) -> str:
    """A case in words: the plain values of its fields."""
    values = (
        vars(case).values() if hasattr(case, "__dataclass_fields__") else case if isinstance(case, tuple) else (case,)
    )
    return " ".join(str(each) for each in values if isinstance(each, str | int | float))
