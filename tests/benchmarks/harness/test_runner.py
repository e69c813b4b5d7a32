"""Worker processes: every item is one worker's, and a failure stops the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import in_parallel, line_of, mine


def test_every_item_is_the_share_of_exactly_one_worker() -> None:
    shares = [mine(range(11), f"{index}/3") for index in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(11))


def test_workers_get_their_part_and_a_failure_stops_the_benchmark(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "part = sys.argv[sys.argv.index('--part') + 1]\n"
        "pathlib.Path(sys.argv[1], part.replace('/', 'of')).touch()\n"
        "sys.exit(part == sys.argv[2])\n"
    )
    in_parallel(str(script), [str(tmp_path), "none"], 2)
    assert {"0of2", "1of2"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match="run again to go on"):
        in_parallel(str(script), [str(tmp_path), "1/2"], 2)


def test_a_row_prints_on_one_line_with_what_is_missing() -> None:
    line = line_of(Row("a.b", None, target=">= 2", n=3, note="why"))
    assert "none" in line and "not measured" in line and line.endswith("n=3  why") and "baseline" not in line
