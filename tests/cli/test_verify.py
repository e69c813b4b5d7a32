"""``photopic verify``: a table of checks that hold, or status 1; another base is one line with both names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import Tensor

from photopic.core.edits import EditStack
from tests.cli.conftest import refusal, run


def test_every_check_of_a_located_edit_holds(edit: Path, model: Path) -> None:
    said = run("verify", edit, model, "--device", "cpu").stdout
    for word in ("bear.edit on tiny", "base", "touched entries", "other tensors", "new words", "reverted", "ok"):
        assert word in said, word
    assert "failed" not in said
    shown = json.loads(run("verify", edit, model, "--device", "cpu", "--json").stdout)
    assert shown["accepted"] and len(shown["checks"]) >= 6 and all(check["passed"] for check in shown["checks"])


def test_a_check_that_fails_is_status_1(edit: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: EditStack, tensors: Mapping[str, Tensor]) -> None:
        self._stash = {}

    monkeypatch.setattr(EditStack, "_restore", forget)
    said = run("verify", edit, model, "--device", "cpu", status=1).stdout
    assert "failed" in said and "before" in said and "after" in said


def test_another_base_is_one_line_with_both_names(tmp_path: Path, edit: Path) -> None:
    from tests.tiny import tiny_pipeline

    tiny_pipeline(seed=5).save_pretrained(tmp_path / "other")
    line = refusal("verify", edit, tmp_path / "other", "--device", "cpu")
    assert "bear.edit: made for base tiny" in line and "this model is other" in line
    assert "absent.edit" in refusal("verify", tmp_path / "absent.edit", tmp_path / "other")
