"""The ledger: what does not follow the schema is refused, what was not reached is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import ledger
from benchmarks.harness.ledger import LedgerError, Row, read_ledger, read_result, write_result

ROW = Row("neurons.loss_drop", 0.11, low=0.08, high=0.14, target="low > 0", baseline=0.0, control=0.002, n=15, note="x")


def write(folder: Path, *rows: Row, benchmark: str = "neurons", command: str = "python benchmarks/neurons.py") -> Path:
    return write_result(benchmark, rows, command=command, seeds=range(5), elapsed_s=12.3456, folder=folder)


def test_a_result_holds_exactly_the_fields_of_the_architecture(tmp_path: Path) -> None:
    path = write(tmp_path, ROW)
    content, rows = read_result(path)
    assert list(content) == ["benchmark", "command", "commit", "machine", "versions", "seeds", "elapsed_s", "rows"]
    fields = ["claim", "value", "low", "high", "unit", "target", "baseline", "control", "n", "note"]
    assert list(content["rows"][0]) == fields
    assert rows == (ROW,)
    assert content["seeds"] == [0, 1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == [path]


def test_no_path_and_no_host_of_the_machine_enters_a_result(tmp_path: Path) -> None:
    import platform

    text = write(tmp_path, ROW).read_text()
    assert str(ledger.ROOT) not in text
    assert str(Path.home()) not in text
    assert f'"{platform.node()}"' not in text


def test_versions_name_what_can_change_a_number(tmp_path: Path) -> None:
    versions = read_result(write(tmp_path, ROW))[0]["versions"]
    assert {"python", "photopic", "torch", "diffusers", "transformers", "numpy"} <= versions.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claim": "loss drop"}, "dotted id"),
        ({"value": float("nan")}, "value: expected a finite number"),
        ({"value": "0.1"}, "value: expected a number"),
        ({"value": np.float32(0.1)}, "value: expected a number"),
        ({"control": float("inf")}, "control: expected a finite number"),
        ({"low": None}, "both or neither"),
        ({"low": 0.12}, "low <= value <= high"),
        ({"value": None}, "low <= value <= high"),
        ({"target": "0.8"}, "target"),
        ({"target": 0.8}, "target"),
        ({"n": 0}, "positive integer"),
        ({"note": "two\nlines"}, "one line"),
        ({"note": "see /srv/runs/a"}, "root of the repository"),
    ],
)
def test_a_row_that_does_not_follow_the_schema_is_refused(changes: dict[str, Any], message: str) -> None:
    fields = {"claim": "a.b", "value": 0.1, "low": 0.0, "high": 0.2} | changes
    with pytest.raises(LedgerError, match=message):
        Row(**fields)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("a.b", 0.80, target=">= 0.8"), "yes"),
        (Row("a.b", 0.79, target=">= 0.8"), "NO"),
        (Row("a.b", 0.2, low=0.1, high=0.3, target="low > 0"), "yes"),
        (Row("a.b", 0.2, low=-0.1, high=0.3, target="low > 0"), "NO"),
        (Row("a.b", 0.2, target="low > 0"), "no interval"),
        (Row("a.b", -0.2, low=-0.3, high=-0.1, target="high <= -0.1"), "yes"),
        (Row("a.b", 0, target="== 0"), "yes"),
        (Row("a.b", 1, target="< 1e-6"), "NO"),
        (Row("a.b", None, target="== 0"), "not measured"),
        (Row("a.b", 3.0), "-"),
    ],
)
def test_reached_is_decided_by_the_target(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_a_claim_stands_once(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="found twice"):
        write(tmp_path, ROW, ROW)
    write(tmp_path, ROW)
    write(tmp_path, ROW, benchmark="other")
    with pytest.raises(LedgerError, match=r"both neurons\.json and other\.json"):
        read_ledger(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"benchmark": "Neurons"}, "lower-case"),
        ({"benchmark": "../up"}, "lower-case"),
        ({"command": ""}, "found nothing"),
        ({"command": "/opt/python/bin/python benchmarks/neurons.py"}, "root of the repository"),
    ],
)
def test_a_bad_result_is_refused_and_leaves_no_file(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        write(tmp_path, ROW, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_result_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="at least one"):
        write(tmp_path)


@pytest.mark.parametrize(
    "edit", [lambda c: c.pop("seeds"), lambda c: c["rows"][0].update(p=1), lambda c: c["rows"][0].pop("n")]
)
def test_a_file_changed_by_hand_is_refused(tmp_path: Path, edit: Any) -> None:
    path = write(tmp_path, ROW)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(LedgerError, match="neurons"):
        read_ledger(tmp_path)


def test_the_table_shows_what_was_not_reached_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = (Row("neurons.at.one", 0.25, 0.2, 0.3), Row("neurons.at.two", 7.0, unit="s"))
    write(tmp_path, ROW, Row("neurons.gap", 1.5, target=">= 2"), Row("neurons.never", None, target=">= 2"), *beside)
    ledger.print_table(read_ledger(tmp_path))
    printed = capsys.readouterr().out
    page = ledger.markdown(read_ledger(tmp_path))
    for text in (printed, page):
        assert all(word in text for word in ("neurons.loss_drop", "0.08 to 0.14", "NO", "not measured"))
        assert "5 claims: 1 reached, 1 not reached, 1 not measured" in text
    assert "| neurons.at.* | one 0.25 (0.2 to 0.3); two 7 s | neurons |" in page


def test_the_stored_ledger_is_valid_and_the_docs_show_it() -> None:
    expected = ledger.markdown(read_ledger())
    assert ledger.DOCS.read_text(encoding="utf-8") == expected, "run `python -m benchmarks.harness.ledger --docs`"
