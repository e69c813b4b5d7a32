"""``photopic diff``: what differs, for people and programs, and in the exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from photopic.core.edits import ZeroedWeights
from photopic.core.edits.file import load, save
from tests.cli.conftest import refusal, run


def changed(edit: Path, place: Path) -> Path:
    """The same edit with one entry fewer in its first tensor."""
    loaded = load(edit)
    parts = [part for part in loaded.parts if isinstance(part, ZeroedWeights)]
    name = next(iter(parts[0].indices))
    fewer = ZeroedWeights({**parts[0].indices, name: parts[0].indices[name][1:]})
    save(replace(loaded, parts=(fewer, *(part for part in loaded.parts if part is not parts[0]))), place)
    return place


def test_the_same_edit_leaves_with_status_0(tmp_path: Path, edit: Path) -> None:
    save(replace(load(edit), provenance={"method": "another"}), tmp_path / "b.edit")
    said = run("diff", edit, tmp_path / "b.edit").stdout
    assert "do the same, and were found in different ways" in said and "<mine>" in said


def test_another_edit_leaves_with_status_1_and_says_what_differs(tmp_path: Path, edit: Path) -> None:
    other = changed(edit, tmp_path / "b.edit")
    assert "differ" in run("diff", edit, other, status=1).stdout
    shown = json.loads(run("diff", edit, other, "--json", status=1).stdout)
    assert shown["files"] == ["bear.edit", "b.edit"] and shown["values"]["only_a"] == 1
    assert shown["values"]["only_b"] == shown["values"]["different"] == 0 and 0.9 < shown["values"]["jaccard"] < 1
    entries = sum(len(at) for at in load(other).touched().values() if isinstance(at, torch.Tensor))
    assert sum(row["equal"] for row in shown["rows"] if row["kind"] == "weights") == entries


def test_a_file_that_is_no_edit_is_status_2(tmp_path: Path, edit: Path) -> None:
    (tmp_path / "x.edit").write_bytes(b"no")
    assert "x.edit" in refusal("diff", edit, tmp_path / "x.edit")
