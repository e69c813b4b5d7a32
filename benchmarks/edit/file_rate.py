"""How fast edit files with large dense or low-rank parts are written and read, beside one pass of SHA-256 over them.

    python -m benchmarks file-rate            # writes benchmarks/results/file-rate.json

Random normal numbers; megabytes of what the parts hold in memory, a CPU second of one thread, medians of rounds in turn. The reader
checks everything that it checks of any file, and what was read is saved to the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import nn

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_interval, side_by_side
from photopic.core.config import Config
from photopic.core.editfile.rows import held_by
from photopic.core.edits import DenseDelta, Edit, LowRankDelta, Part
from photopic.core.edits.file import from_bytes, to_bytes
from photopic.core.edits.file.parts import part_content
from photopic.core.fingerprint import fingerprint

SEED, NAME, COLUMNS, RANK = 0, "m.weight", 1280, 1280
CLAIMS = (
    Claim("edit.file_save.*", ">= 150", "baseline: SHA-256 alone", "MB/s"),
    Claim("edit.file_read.*", ">= 200", "baseline: SHA-256 alone", "MB/s"),
)


@dataclass(frozen=True)
class RateConfig(Config):
    """How much is measured."""

    numbers: Annotated[int, Ge(1)] = 26_000  # rows of 1,280 numbers
    rounds: Annotated[int, Ge(1)] = 7  # in turn


def parts(rows: int) -> dict[str, Part]:
    """Low-rank factors in float16, and dense deltas in bfloat16 and float32, each of about ``rows`` x 1280 numbers."""
    draw = torch.Generator().manual_seed(SEED)
    dense = torch.randn(rows, COLUMNS, generator=draw)
    up, down = torch.randn(rows, RANK, generator=draw).half(), torch.randn(RANK, COLUMNS, generator=draw).half()
    return {
        "low_rank_float16": LowRankDelta({NAME: up}, {NAME: down}),
        "dense_bfloat16": DenseDelta({NAME: dense.bfloat16()}),
        "dense_float32": DenseDelta({NAME: dense}),
    }


def rates(label: str, edit: Edit, rounds: int) -> Iterator[Row]:
    """Both rates of one edit."""
    content = to_bytes(edit)
    assert to_bytes(from_bytes(content)) == content
    held = sum(len(each.data) for each in held_by(part_content(edit.parts[0]))[NAME]) / 1e6
    calls = (partial(to_bytes, edit), partial(from_bytes, content), partial(hashlib.sha256, content))
    times = side_by_side(calls, rounds, warm_up=1, clock=time.thread_time)
    save, read, hashed = ([held / each for each in seconds] for seconds in times)
    note = f"{held:.0f} MB in memory, {len(content) / 1e6:.0f} MB as a file"
    for way, found in (("save", save), ("read", read)):
        claim = f"edit.file_{way}.{label}"
        yield row(claim, median_interval(found), baseline=median(hashed), n=rounds, note=note)


def rows(bench: Bench[RateConfig, Any]) -> Iterator[Row]:
    """All claims."""
    numbers = bench.config.numbers
    base = fingerprint({"m": nn.Linear(COLUMNS, numbers, bias=False)}, "random", [NAME])
    for label, part in parts(numbers).items():
        yield from rates(label, Edit((part,), base), bench.config.rounds)


BENCHMARKS = (Benchmark("file-rate", __doc__, RateConfig(), RateConfig(2_600, 3), CLAIMS, rows, seeds=(SEED,)),)
