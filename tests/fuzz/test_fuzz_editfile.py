"""A short run of the fuzzer, and that it sees what it is there for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from photopic.core.edits import Edit
from photopic.core.edits.file import reading
from photopic.core.errors import EditFileError
from tests.fuzz import fuzz_editfile
from tests.fuzz.corpus import files
from tests.fuzz.fuzz_editfile import Fuzzer, rows_of, summary, work

COUNT = 2000


def test_mutated_files_give_an_edit_file_error_or_an_edit_of_the_same_bytes() -> None:
    fuzzer = Fuzzer(seed=0)
    at_first = len(fuzzer.lines)
    failures = [wrong for _, wrong in (fuzzer.step() for _ in range(COUNT)) if wrong]
    assert failures == []
    assert fuzzer.refused + fuzzer.accepted == COUNT and fuzzer.refused > COUNT // 2
    assert fuzzer.accepted > COUNT // 50  # changes that the checks let through, so they get past the checksum
    assert len(fuzzer.lines) > at_first + 20 and fuzzer.kept and len(fuzzer.messages) > 60


@pytest.mark.parametrize("error", [KeyError("kind"), MemoryError(), RecursionError(), RuntimeError("shape")])
def test_any_other_error_is_a_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fuzzer = Fuzzer(seed=0)

    def broken(*_: Any) -> Edit:
        raise error

    monkeypatch.setattr(reading, "from_bytes", broken)
    assert type(error).__name__ in fuzzer.step()[1]


def test_a_second_form_a_long_message_and_a_long_time_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzer, edit = Fuzzer(seed=0), reading.from_bytes(files()["shut"])
    monkeypatch.setattr(reading, "from_bytes", lambda *_: edit)
    assert "saves to other bytes" in fuzzer.step()[1]

    def chatty(*_: Any) -> Edit:
        raise EditFileError("one\ntwo")

    monkeypatch.setattr(reading, "from_bytes", chatty)
    assert "more than one line" in fuzzer.step()[1]

    def endless(*_: Any) -> Edit:
        while True:
            pass

    monkeypatch.setattr(reading, "from_bytes", endless)
    monkeypatch.setattr(fuzz_editfile, "MOST_SECONDS", 0.05)
    assert "TimeoutError" in fuzzer.step()[1]


def test_a_stopped_run_is_logged_and_the_same_seed_mutates_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_editfile, "BATCH", 20)
    monkeypatch.setattr(fuzz_editfile, "limit_memory", lambda: None)  # it would hold for the rest of the tests
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        work(tmp_path / name, [0, 1], seed=5, seconds=1000)
    rows = [rows_of(tmp_path / name, 5) for name in ("one", "two")]
    assert [row["batch"] for row in rows[0]] == [0, 1]
    assert [(row["refused"], row["accepted"]) for row in rows[0]] == [
        (row["refused"], row["accepted"]) for row in rows[1]
    ]
    total = summary(rows[0])
    assert total["count"] == 40 == total["refused"] + total["accepted"] and total["failed"] == 0
    assert json.loads((tmp_path / "one" / "log.jsonl").read_text().splitlines()[0])["seed"] == 5
