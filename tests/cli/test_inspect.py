"""``photopic inspect``: shows what a file holds, to people and to programs, without a model."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from photopic.core.editfile import load
from tests.cli.conftest import refusal, run


def test_shows_layers_blocks_bytes_and_provenance(edit: Path) -> None:
    shown = run("inspect", edit).stdout
    for word in ("Layers", "Blocks", "Bytes", "How it was found", "cross", "down 0", "up 1", "entropy", "<mine> bear"):
        assert word in shown, word
    assert f"{edit.stat().st_size:,} bytes" in shown and load(edit).base.digest[:12] in shown


def test_json_is_all_of_stdout_and_adds_up(edit: Path) -> None:
    shown = json.loads(run("inspect", edit, "--json").stdout)
    loaded = load(edit)
    touched = loaded.touched()
    rows = [row for row in shown["tensors"] if row["kind"] != "token"]
    assert shown["count"] == sum(map(len, touched.values())) == sum(row["count"] for row in rows)
    assert shown["size"] == sum(math.prod(loaded.shapes[name]) for name in touched)
    assert shown["naive_bytes"] == 4 * shown["count"] > shown["index_bytes"]
    assert shown["file"]["sha256"] == hashlib.sha256(edit.read_bytes()).hexdigest()
    assert shown["provenance"]["noun"] == "bear" and shown["base_name"] == "tiny"


def test_a_file_that_is_no_edit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.edit").write_bytes(b"not an edit")
    assert "x.edit" in refusal("inspect", tmp_path / "x.edit")
    assert "absent.edit" in refusal("inspect", tmp_path / "absent.edit")


def test_markup_and_control_characters_of_a_file_are_only_text(tmp_path: Path, edit: Path) -> None:
    from dataclasses import replace

    from photopic.core.editfile import save

    loaded = load(edit)
    save(replace(loaded, provenance={"method": "[red]x[/red]\x1b[2Jy", "noun": "[/]"}), tmp_path / "odd.edit")
    shown = run("inspect", tmp_path / "odd.edit").stdout
    assert "[red]x[/red]" in shown and "\x1b" not in shown
