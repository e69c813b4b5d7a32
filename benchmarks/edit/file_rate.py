"""How fast edit files with large dense or low-rank parts are written and read, beside one pass of SHA-256 over them.

    python -m benchmarks.edit.file_rate            # writes benchmarks/results/file-rate.json
    python -m benchmarks.edit.file_rate --quick    # a tenth of the numbers, prints only

Random normal numbers; megabytes of what the parts hold in memory, a CPU second of one thread, medians of rounds in turn. The reader
checks everything that it checks of any file, and what was read is saved to the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.harness.ledger import Row, write_result
from benchmarks.harness.timing import side_by_side
from photopic.core.edits import DenseDelta, Edit, LowRankDelta, Part
from photopic.core.edits.file import from_bytes, to_bytes
from photopic.core.fingerprint import fingerprint

SEED, NAME, COLUMNS, RANK = 0, "m.weight", 1280, 1280
TARGETS = {"save": ">= 150", "read": ">= 200"}


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


def rows_of(label: str, edit: Edit, rounds: int) -> list[Row]:
    """Both rates of one edit."""
    content = to_bytes(edit)
    assert to_bytes(from_bytes(content)) == content
    held = sum(each.numel() * each.element_size() for each in edit.parts[0].stored()[NAME]) / 1e6
    calls = (partial(to_bytes, edit), partial(from_bytes, content), partial(hashlib.sha256, content))
    times = side_by_side(calls, rounds, warm_up=1, clock=time.thread_time)
    *rates, hashed = (sorted(held / each for each in found) for found in times)
    note = f"{held:.0f} MB in memory, {len(content) / 1e6:.0f} MB as a file; baseline: SHA-256 alone; the interval is the range"
    return [
        Row(
            f"edit.file_{way}.{label}",
            round(median(found), 1),
            round(found[0], 1),
            round(found[-1], 1),
            unit="MB/s",
            target=TARGETS[way],
            baseline=round(median(hashed), 1),
            n=rounds,
            note=note,
        )
        for way, found in zip(("save", "read"), rates, strict=True)
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the numbers; prints only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, count, rounds = time.monotonic(), 2_600 if options.quick else 26_000, 3 if options.quick else 7
    base = fingerprint({"m": nn.Linear(COLUMNS, count, bias=False)}, "random", [NAME])
    rows = [row for label, part in parts(count).items() for row in rows_of(label, Edit((part,), base), rounds)]
    for row in rows:
        print(f"{row.claim:34} {row.value:>8} MB/s {row.target} {row.verdict:4} {row.note}")
    if not options.quick:
        elapsed = time.monotonic() - started
        write_result("file-rate", rows, command="python -m benchmarks.edit.file_rate", seeds=[SEED], elapsed_s=elapsed)


if __name__ == "__main__":
    main()
