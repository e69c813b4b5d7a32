"""The ledger of claims: every benchmark writes its numbers here, reached or not, and one table shows them all.

    python -m benchmarks.harness.ledger          # print the table (`make claims`)
    python -m benchmarks.harness.ledger --docs   # write the same table to docs/claims.md

One file a benchmark, ``benchmarks/results/<benchmark>.json``. A benchmark hands its rows to ``write_result``, which
checks them and adds the machine, the versions and the commit; no path of the machine enters the file.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from photopic.core.provenance import machine, versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "claims.md"
CLAIM = re.compile(r"[a-z0-9_]+(\.[a-z0-9_-]+)+")
TARGET = re.compile(r"(?:(value|low|high) )?(>=|<=|>|<|==) (-?\d+(?:\.\d+)?(?:e-?\d+)?)")
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}
MACHINE_PATH = re.compile(r"(?:^|[\s\"'=(:])(?:~|/[A-Za-z_][\w.-]*)/|[A-Za-z]:\\")
KEYS = ("benchmark", "command", "commit", "machine", "versions", "seeds", "elapsed_s", "rows")
HEADINGS = "claim,value,95 % interval,unit,target,reached,baseline,control,n,benchmark,note"
COLUMNS = tuple(HEADINGS.split(","))


class LedgerError(ValueError):
    """A row or a result file that does not follow the schema; names the claim and the field."""


@dataclass(frozen=True)
class Row:
    """One claim and what was measured for it.

    Attributes:
        claim: Stable dotted id, such as ``neurons.similarity_vs_random``.
        value: What was measured; None where it could not be.
        low: Lower end of the 95 % interval; None, with ``high``, for a deterministic number.
        high: Upper end of the 95 % interval.
        unit: Unit of the value, such as ``s`` or ``MB``; empty for a plain number.
        target: What was asked for: ``>= 0.80``, ``== 0`` (on the value) or ``low > 0`` (the interval is above zero);
            None where nothing was asked.
        baseline: The same quantity for the method compared with.
        control: The same quantity for the negative control.
        n: Number of samples or pairs behind the value.
        note: Where it fails, what limits it, what was varied.
    """

    claim: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    target: str | None = None
    baseline: float | None = None
    control: float | None = None
    n: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.claim, str) or not CLAIM.fullmatch(self.claim):
            raise LedgerError(f"claim {self.claim!r}: expected a dotted id such as 'neurons.loss_drop'")
        for name in ("value", "low", "high", "baseline", "control"):
            self._check_number(name)
        if self.n is not None and (type(self.n) is not int or self.n < 1):
            raise LedgerError(f"{self.claim}: n: expected a positive integer or None, found {self.n!r}")
        if (self.low is None) != (self.high is None):
            raise LedgerError(f"{self.claim}: low and high: expected both or neither, found {self.low} and {self.high}")
        ends = [end for end in (self.low, self.value, self.high) if end is not None]
        if self.low is not None and (len(ends) < 3 or ends != sorted(ends)):
            raise LedgerError(f"{self.claim}: expected low <= value <= high, found {ends}")
        if self.target is not None and not (isinstance(self.target, str) and TARGET.fullmatch(self.target)):
            raise LedgerError(f"{self.claim}: target: expected such as '>= 0.8' or 'low > 0', found {self.target!r}")
        for name in ("unit", "note"):
            _check_text(f"{self.claim}: {name}", getattr(self, name))

    def _check_number(self, name: str) -> None:
        number = getattr(self, name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise LedgerError(f"{self.claim}: {name}: expected a number or None, found {number!r}")
        if number is not None and not math.isfinite(number):
            raise LedgerError(f"{self.claim}: {name}: expected a finite number, found {number}; write None")

    @property
    def reached(self) -> bool | None:
        """Whether the target was met; None without a target or without the number the target speaks of.

        Example:
            >>> Row("model.concept_top1", 0.83, low=0.79, high=0.86, target=">= 0.80").reached
            True
        """
        if self.target is None:
            return None
        quantity, comparison, bound = TARGET.fullmatch(self.target).groups()  # type: ignore[union-attr]
        number = getattr(self, quantity or "value")
        return None if number is None else COMPARE[comparison](number, float(bound))

    @property
    def verdict(self) -> str:
        """What the table says under ``reached``."""
        if self.value is None:
            return "not measured"
        if self.target is None:
            return "-"
        return {True: "yes", False: "NO", None: "no interval"}[self.reached]


def write_result(
    benchmark: str, rows: Iterable[Row], *, command: str, seeds: Sequence[int], elapsed_s: float, folder: Path = RESULTS
) -> Path:
    """Check the rows of one benchmark and write its file, replacing what an earlier run wrote.

    Args:
        benchmark: Name of the file: lower-case letters, digits, hyphens and underscores.
        rows: At least one; a claim may stand only once.
        command: What makes the same file again, from the root of the repository.
        seeds: Every seed that was used.
        elapsed_s: Seconds the whole benchmark took.
        folder: Where the file goes.

    Returns:
        The path of the file.

    Raises:
        LedgerError: If a name, a row or the command does not follow the schema.
    """
    from photopic.core.runs import write_atomically  # imports torch, which printing the table does without

    content = {
        "benchmark": benchmark,
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "seeds": [int(seed) for seed in seeds],
        "elapsed_s": round(float(elapsed_s), 3),
        "rows": [asdict(row) for row in rows],
    }
    _parse(content, benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.json"
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return path


def read_result(path: Path) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """One result file: its content, and its rows checked.

    Raises:
        LedgerError: If the file does not follow the schema; the message names the file and the field.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LedgerError(f"{path.name}: expected JSON: {error}") from error
    return content, _parse(content, path.stem)


def read_ledger(folder: Path = RESULTS) -> list[tuple[str, Row]]:
    """Every row of every benchmark with the name of its benchmark, sorted by claim.

    Raises:
        LedgerError: If two benchmarks answer the same claim, or a file does not follow the schema.
    """
    found = [(path.stem, row) for path in sorted(folder.glob("*.json")) for row in read_result(path)[1]]
    owner: dict[str, str] = {}
    for benchmark, row in found:
        if owner.setdefault(row.claim, benchmark) != benchmark:
            raise LedgerError(f"{row.claim}: answered by both {owner[row.claim]}.json and {benchmark}.json; keep one")
    return sorted(found, key=lambda pair: pair[1].claim)


def commit() -> str | None:
    """The commit the numbers belong to, ``-dirty`` if tracked files other than results differ; None outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs/claims.md"
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def table_rows(ledger: Sequence[tuple[str, Row]]) -> list[tuple[str, ...]]:
    """The cells of the table, in the order of ``COLUMNS``; what is missing shows as ``-``."""
    return [
        (row.claim, _number(row.value), _interval(row), row.unit or "-", row.target or "-", row.verdict,
         *map(_number, (row.baseline, row.control, row.n)), benchmark, row.note)
        for benchmark, row in ledger
    ]  # fmt: skip


def markdown(ledger: Sequence[tuple[str, Row]]) -> str:
    """The page docs/claims.md."""
    lines = [
        "# Claims",
        "",
        "Every claim with what was measured, reached or not. Written by `python -m benchmarks.harness.ledger --docs` from",
        "`benchmarks/results/`, where each file also holds the machine, the versions, the commit and the seeds.",
        "An interval is a 95 % interval; `low > 0` asks that the whole interval lies above zero.",
        "",
    ]
    if not ledger:
        return "\n".join([*lines, "No benchmark has been run yet.", ""])
    asked = [each for each in ledger if each[1].target is not None]
    lines += [*_table(COLUMNS, table_rows(asked)), "", _summary(ledger), "", "## Measured beside them", ""]
    lines += ["No target was set for these. `make claims` shows each with its note, n, baseline and control.", ""]
    return "\n".join([*lines, *_table(("claims", "values, and 95 % intervals", "benchmark"), _beside(ledger)), ""])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _beside(ledger: Sequence[tuple[str, Row]]) -> list[tuple[str, str, str]]:
    """What was measured without a target: one row for all claims of a benchmark that differ in their last word."""
    found: dict[tuple[str, str], list[str]] = {}
    for benchmark, row in ledger:
        if row.target is None:
            family, _, word = row.claim.rpartition(".")
            interval = "" if row.low is None else f" ({_interval(row)})"
            said = f"{word} {_number(row.value)} {row.unit}".rstrip() + interval
            found.setdefault((family, benchmark), []).append(said)
    return [(f"{family}.*", "; ".join(values), benchmark) for (family, benchmark), values in found.items()]


def print_table(ledger: Sequence[tuple[str, Row]]) -> None:
    """Print the whole ledger; wide enough for a log file where there is no terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table(*COLUMNS, title="Claims", caption=_summary(ledger))
    for cells, (_, row) in zip(table_rows(ledger), ledger, strict=True):
        style = {"yes": "green", "NO": "red", "-": ""}.get(row.verdict, "yellow")
        table.add_row(*(cell.replace("[", r"\[") for cell in cells), style=style)
    console.print(table)


def _parse(content: Any, name: str) -> tuple[Row, ...]:
    """The rows of a result, after every field was checked."""
    if not isinstance(content, dict) or sorted(content) != sorted(KEYS):
        raise LedgerError(f"{name}: expected the fields {', '.join(KEYS)}, found {', '.join(content)}")
    if content["benchmark"] != name or not re.fullmatch(r"[a-z0-9_-]+", name):
        raise LedgerError(f"{name}: benchmark: expected the file's lower-case name, found {content['benchmark']!r}")
    _check_text(f"{name}: command", content["command"])
    if not content["command"]:
        raise LedgerError(f"{name}: command: expected what makes the file again, found nothing")
    if not content["rows"]:
        raise LedgerError(f"{name}: rows: expected at least one, found none")
    rows = tuple(_row(name, item) for item in content["rows"])
    claims = [row.claim for row in rows]
    repeated = sorted({claim for claim in claims if claims.count(claim) > 1})
    if repeated:
        raise LedgerError(f"{name}: rows: expected every claim once, found twice: {', '.join(repeated)}")
    return rows


def _row(name: str, item: dict[str, Any]) -> Row:
    expected = {field.name for field in fields(Row)}
    if set(item) != expected:
        raise LedgerError(f"{name}: row: missing or unknown fields: {', '.join(sorted(expected ^ set(item)))}")
    return Row(**item)


def _check_text(what: str, text: Any) -> None:
    if not isinstance(text, str) or "\n" in text:
        raise LedgerError(f"{what}: expected one line of text, found {text!r}")
    if MACHINE_PATH.search(text):
        raise LedgerError(f"{what}: expected paths from the root of the repository only, found {text!r}")


def _interval(row: Row) -> str:
    return "-" if row.low is None else f"{_number(row.low)} to {_number(row.high)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _summary(ledger: Sequence[tuple[str, Row]]) -> str:
    verdicts = [row.verdict for _, row in ledger]
    named = {"reached": "yes", "not reached": "NO", "not measured": "not measured"}
    counts = ", ".join(f"{verdicts.count(verdict)} {name}" for name, verdict in named.items())
    return f"{len(ledger)} claims: {counts}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Print every claim with what was measured, reached or not.")
    parser.add_argument("--docs", action="store_true", help="write the table to docs/claims.md")
    ledger = read_ledger()
    if parser.parse_args().docs:
        DOCS.write_text(markdown(ledger), encoding="utf-8")
        print(f"{len(ledger)} claims -> {DOCS.relative_to(ROOT)}")
    else:
        print_table(ledger)


if __name__ == "__main__":
    main()
