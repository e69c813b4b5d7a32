"""``photopic inspect``: shows what a file holds, to people and to programs, without a model."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from photopic.core.edits.file import load, save
from tests.cli.conftest import refusal, run


def test_shows_layers_blocks_bytes_and_provenance(edit: Path) -> None:
    shown = run("inspect", edit).stdout
    for word in (
        "Layers",
        "Blocks",
        "Bytes",
        "How it was found",
        "cross",
        "down 0",
        "up 1",
        "entropy",
        "<mine> bear",
        "Values",
        "┼",
    ):
        assert word in shown, word
    assert f"{edit.stat().st_size:,} bytes" in shown and load(edit).base.digest[:12] in shown


def test_json_is_all_of_stdout_and_adds_up(edit: Path) -> None:
    shown = json.loads(run("inspect", edit, "--json").stdout)
    loaded = load(edit)
    touched = loaded.touched()
    rows = [row for row in shown["tensors"] if row["kind"] != "token"]
    assert sum(block["count"] for block in shown["blocks"]) == shown["count"]
    assert [part["kind"] for part in shown["parts"]] == [part.kind for part in loaded.parts]
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

    loaded = load(edit)
    save(replace(loaded, provenance={"method": "[red]x[/red]\x1b[2Jy", "noun": "[/]"}), tmp_path / "odd.edit")
    shown = run("inspect", tmp_path / "odd.edit").stdout
    assert "[red]x[/red]" in shown and "\x1b" not in shown


def test_every_kind_of_part_is_shown(tmp_path: Path) -> None:
    from tests.core.edits.kinds import edit as small_edit
    from tests.core.edits.kinds import hook_parts, other_parts, weight_parts

    nested = {
        "method": "compose",
        "overlap": "ties",
        "parents": [{"method": "one"}, {"method": "compose", "parents": [{}]}],
    }
    save(small_edit(*weight_parts(), *hook_parts(), *other_parts(), **nested), tmp_path / "all.edit")
    shown = run("inspect", tmp_path / "all.edit").stdout
    for word in (
        "low-rank",
        "delta",
        "2 bits, set",
        "8 bits, added",
        "insertion",
        "direction",
        "noise",
        "residual",
        "bear",
    ):
        assert word in shown, word
    for line in ("Made of", "compose, overlap ties", "├── one", "    └── unknown method"):
        assert line in shown, line
    json.loads(run("inspect", tmp_path / "all.edit", "--json").stdout)


def test_a_dense_edit_shows_how_much_is_added_to_each_block(tmp_path: Path) -> None:
    from photopic.core.edits import LowRankDelta
    from tests.core.edits.kinds import edit as small_edit
    from tests.core.edits.kinds import weight_parts

    save(small_edit(*(part for part in weight_parts() if isinstance(part, LowRankDelta))), tmp_path / "lora.edit")
    shown = run("inspect", tmp_path / "lora.edit").stdout
    assert "Blocks, norm added" in shown and "rank 2" in shown and "as int32" not in shown
