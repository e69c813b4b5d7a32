"""The harness: cases are shared, kept and gone on with; only the full config is stored; rows get what their claims declare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from benchmarks.harness import benchmark as harness
from benchmarks.harness.benchmark import Bench, Benchmark, line_of, mine, run
from benchmarks.harness.cache import NotMeasured, ResultCache
from benchmarks.harness.claims import Claim, declaration, declared, row, share
from benchmarks.harness.ledger import LedgerError, Row, read_result
from benchmarks.harness.timing import median_ratio
from photopic.core.config import Config
from photopic.core.errors import FieldError


@dataclass(frozen=True)
class SquaresConfig(Config):
    """How much is measured."""

    numbers: tuple[int, ...] = (1, 2, 3, 4)  # to square
    twice: bool = False  # whether the square is doubled
    seeds: Annotated[int, Ge(1)] = 1  # of nothing


MEASURED: list[tuple[int, bool]] = []


def measure(bench: Bench[Any, Any], case: tuple[int, bool]) -> int:
    MEASURED.append(case)
    return case[0] ** 2 * (2 if case[1] else 1)


def cases(config: SquaresConfig) -> list[tuple[int, bool]]:
    return [(number, config.twice) for number in config.numbers]


def rows(bench: Bench[SquaresConfig, Any]) -> Iterator[Row]:
    values = [bench.found(case) for case in bench.cases]
    yield row("squares.mean", (sum(values) / len(values), 0, 99), n=len(values), note="of all")
    yield row("squares.each.last", values[-1])


CLAIMS = (Claim("squares.mean", ">= 7", "mean square", "apples"), Claim("squares.each.*"))
SQUARES = Benchmark(
    "squares", "Squares.", SquaresConfig(), SquaresConfig((1, 2)), CLAIMS, rows, cases, measure, seeds=(7,)
)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is kept or stored outside, and no worker starts."""
    MEASURED.clear()
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "in_parallel", lambda *_: None)
    write = harness.write_result
    monkeypatch.setattr(harness, "write_result", lambda *a, **k: write(*a, **k, folder=tmp_path))
    return tmp_path / "squares.json"


def test_a_full_run_stores_its_rows_with_what_their_claims_declare(stored: Path) -> None:
    run(SQUARES, [])
    content, (mean, last) = read_result(stored)
    assert content["command"] == "python -m benchmarks squares" and content["seeds"] == [7]
    assert (mean.value, mean.target, mean.unit, mean.note, mean.verdict) == (
        7.5,
        ">= 7",
        "apples",
        "mean square; of all",
        "yes",
    )
    assert (last.value, last.target, last.note) == (16, None, "")


@pytest.mark.parametrize("arguments", [["--quick"], ["--numbers", "1", "2", "3"], ["--twice"]])
def test_any_other_run_only_prints(arguments: list[str], stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(SQUARES, arguments)
    assert not stored.exists() and "squares.mean" in capsys.readouterr().out


def test_what_is_kept_is_not_measured_again_and_another_config_is_another_case(stored: Path) -> None:
    run(SQUARES, ["--quick"])
    run(SQUARES, [])
    assert sorted(MEASURED) == [(1, False), (2, False), (3, False), (4, False)]
    run(SQUARES, ["--twice"])
    assert len(MEASURED) == 8


def test_rows_only_measures_nothing(stored: Path) -> None:
    run(SQUARES, ["--quick"])
    run(SQUARES, ["--quick", "--rows-only"])
    with pytest.raises(SystemExit, match="run without --rows-only"):
        run(SQUARES, ["--rows-only"])
    assert len(MEASURED) == 2 and not stored.exists()


def test_a_range_of_the_config_holds_on_the_command_line(stored: Path) -> None:
    with pytest.raises(FieldError, match="seeds: expected 1 or more, found 0"):
        run(SQUARES, ["--seeds", "0"])


@pytest.mark.parametrize(("together", "first"), [(None, [1, 3]), (lambda case: case[0] > 2, [1, 2])])
def test_every_case_is_one_workers_and_those_of_one_label_stay_together(
    together: Any, first: list[int], stored: Path
) -> None:
    run(replace(SQUARES, together=together), ["--part", "0/2"])
    assert [number for number, _ in MEASURED] == first
    run(replace(SQUARES, together=together), ["--part", "1/2"])
    assert sorted(number for number, _ in MEASURED) == [1, 2, 3, 4]


def test_every_item_is_the_share_of_exactly_one_worker() -> None:
    shares = [mine(range(11), f"{index}/3") for index in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(11))


def test_a_worker_that_fails_stops_the_benchmark(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="run again to go on"):
        harness.in_parallel("no-such-benchmark", [], 1)
    assert "expected one of" in capfd.readouterr().err


def test_an_undeclared_claim_is_refused_and_the_own_declaration_comes_before_a_pattern() -> None:
    with pytest.raises(LedgerError, match=r"squares\.median: expected a declared claim such as squares\.mean"):
        list(declared([row("squares.median", 1)], CLAIMS))
    claims = (Claim("a.*", "> 0"), Claim("a.b", "> 1"), Claim("a.b.*", "> 2"))
    assert [declaration(each, claims).target for each in ("a.c", "a.b", "a.b.c")] == ["> 0", "> 1", "> 2"]


def test_a_row_keeps_six_digits_an_interval_around_its_value_and_its_own_target() -> None:
    found = row("a.b", (0.123456, 0.12345678, 0.2), baseline=1 / 3, target="<= 0.2")
    assert (found.value, found.low, found.baseline) == (0.123456, 0.123456, 0.333333)
    assert next(iter(declared([found], [Claim("a.b")]))).target == "<= 0.2"
    assert share("a.b", [True, True, False, False]).value == 0.5


def test_times_are_compared_round_by_round() -> None:
    assert median_ratio([2, 4, 60], [1, 2, 3]).value == 2  # a slow round does not count more than another


def test_a_row_prints_on_one_line_with_what_is_missing() -> None:
    line = line_of(Row("a.b", None, target=">= 2", n=3, note="why"))
    assert "none" in line and "not measured" in line and line.endswith("n=3  why") and "baseline" not in line


def test_a_cache_that_only_reads_makes_nothing(tmp_path: Path) -> None:
    ResultCache(tmp_path).value({"known": 1}, lambda: 5)
    cache = ResultCache(tmp_path, only_reads=True)
    assert cache.value({"known": 1}, pytest.fail) == 5
    with pytest.raises(NotMeasured):
        cache.file({"known": 2}, ".edit", pytest.fail)
    assert len(list(tmp_path.iterdir())) == 1
