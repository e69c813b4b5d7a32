"""``photopic inspect``, ``diff``, ``compose``, ``verify``, ``edit ...``: what they show, write and refuse, and how they leave."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from photopic.core.edits import Edit, LowRankDelta, SparseWeights, ZeroedWeights
from photopic.core.edits.file import load, save
from photopic.core.edits.overwritten import Overwritten
from photopic.core.errors import EditError
from photopic.models.text_to_image.handle import TextToImage
from tests.cli.conftest import refusal, run
from tests.core.edits.kinds import edit as small_edit
from tests.core.edits.kinds import hook_parts, other_parts, weight_parts
from tests.tiny import tiny_pipeline

NAME = "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Edits of one tensor of the tiny model: two that shut, one that sets what the first shuts, and a low-rank one."""
    base = TextToImage.load(str(model), "cpu").edits.fingerprint(NAME)
    out, inner = base.shapes[NAME]
    at = torch.arange(10)
    parts = {
        "low": ZeroedWeights({NAME: at}),
        "high": ZeroedWeights({NAME: at + 5}),
        "set": SparseWeights({NAME: at[:4]}, {NAME: torch.ones(4)}),
        "added": LowRankDelta({NAME: torch.ones(out, 1)}, {NAME: torch.ones(1, inner)}),
    }
    folder = tmp_path_factory.mktemp("parts")
    for name, part in parts.items():
        save(Edit((part,), base, {"method": name, "seed": 3}), folder / f"{name}.edit")
    return {name: folder / f"{name}.edit" for name in parts}


def touched(path: Path) -> list[int]:
    positions = load(path).touched()[NAME]
    assert positions is not None
    return positions.tolist()


def test_shows_what_is_shared_and_remembers_its_parents(tmp_path: Path, files: dict[str, Path]) -> None:
    said = run("compose", files["low"], files["high"], "-o", tmp_path / "both.edit")
    assert "share 5 entries" in said.stderr and "both.edit" in said.stdout
    shown = run("edit", "interference", files["low"], files["high"]).stdout
    assert "share 5 entries" in shown and "Interference" in shown and "up 0 cross 0/0 k" in shown
    assert touched(tmp_path / "both.edit") == list(range(15))
    parents = [parent["method"] for parent in load(tmp_path / "both.edit").provenance["parents"]]
    assert sorted(parents) == ["high", "low"]
    shown = run("inspect", tmp_path / "both.edit").stdout
    assert "Made of" in shown and "low, seed 3" in shown and "high, seed 3" in shown


def test_a_composed_word_keeps_its_noun(tmp_path: Path, files: dict[str, Path], edit: Path) -> None:
    run("compose", files["added"], edit, "-o", tmp_path / "both.edit", "--overlap", "first")
    run("compose", tmp_path / "both.edit", files["low"], "-o", tmp_path / "all.edit", "--overlap", "first")
    assert "say it before the noun: <mine> bear" in run("inspect", tmp_path / "all.edit").stdout


def test_a_clash_says_what_is_shared_and_writes_nothing(tmp_path: Path, files: dict[str, Path]) -> None:
    refused = run("compose", files["low"], files["set"], "-o", tmp_path / "x.edit", status=2)
    assert "share 4 entries" in refused.stderr and "union" in refused.stderr
    assert not (tmp_path / "x.edit").exists()


def test_each_policy_is_the_librarys(tmp_path: Path, files: dict[str, Path], model: Path) -> None:
    out = tmp_path / "out.edit"
    run("compose", files["low"], files["set"], "-o", out, "--overlap", "union")
    assert load(out).provenance["overlap"] == "union"
    assert [len(part.indices[NAME]) for part in load(out).parts if isinstance(part, ZeroedWeights | SparseWeights)] == [
        6,
        4,
    ]
    assert "found a file" in refusal("compose", files["low"], files["set"], "-o", out, "--overlap", "first")
    run("compose", files["low"], files["set"], "-o", out, "--overlap", "first", "--overwrite")
    assert touched(out) == list(range(10)) and all(isinstance(part, ZeroedWeights) for part in load(out).parts)
    for policy in ("sum", "ties"):
        weights = ("--weight", 0.5, "--weight", 0.5)
        run(
            "compose",
            files["low"],
            files["added"],
            "-o",
            out,
            "--overwrite",
            "--overlap",
            policy,
            *weights,
            "--model",
            model,
        )
        assert load(out).provenance["weights"] == [0.5, 0.5] and load(out).provenance["overlap"] == policy


def test_an_input_is_never_overwritten(tmp_path: Path, files: dict[str, Path]) -> None:
    before = files["low"].read_bytes()
    (tmp_path / "link.edit").symlink_to(files["low"])
    for output in (files["low"], tmp_path / "link.edit", files["low"].parent / "." / "low.edit"):
        line = refusal("compose", files["low"], files["high"], "-o", output, "--overwrite")
        assert "choose another --output" in line
    assert files["low"].read_bytes() == before


def test_what_cannot_be_composed_is_one_line(
    tmp_path: Path, files: dict[str, Path], edit: Path, photos: Path, model: Path
) -> None:
    out = ("-o", tmp_path / "x.edit")
    assert "at least two" in refusal("compose", files["low"], *out)
    assert "--weight" in refusal("compose", files["low"], files["high"], *out, "--weight", 0.5)
    assert "--model" in refusal("compose", files["added"], files["set"], *out, "--overlap", "sum")
    loaded = load(edit)
    parts = [part for part in loaded.parts if part.kind == "token"]
    other = Edit((type(parts[0])(parts[0].token, {n: -row for n, row in parts[0].rows.items()}),), loaded.base)
    save(other, tmp_path / "other.edit")
    line = refusal("compose", edit, tmp_path / "other.edit", *out)
    assert "other.edit" in line and "bear.edit" in line and "<mine>" in line
    assert not (tmp_path / "x.edit").exists()


def test_a_model_that_is_not_the_base_is_refused_with_both_names(tmp_path: Path, files: dict[str, Path]) -> None:
    tiny_pipeline(seed=5).save_pretrained(tmp_path / "other")
    arguments = ("compose", files["low"], files["set"], "-o", tmp_path / "x.edit", "--overlap", "sum")
    line = refusal(*arguments, "--model", tmp_path / "other")
    assert "low.edit" in line and "tiny" in line and "other" in line
    with pytest.raises(EditError):
        load(tmp_path / "x.edit")


# --- diff


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
    assert shown["values"]["files"] == ["bear.edit", "b.edit"] and shown["values"]["only_a"] == 1
    assert shown["values"]["only_b"] == shown["values"]["different"] == 0 and 0.9 < shown["values"]["jaccard"] < 1
    entries = sum(len(at) for at in load(other).touched().values() if isinstance(at, torch.Tensor))
    assert sum(row["equal"] for row in shown["rows"] if row["kind"] == "weights") == entries


def test_diff_refuses_a_file_that_is_no_edit(tmp_path: Path, edit: Path) -> None:
    (tmp_path / "x.edit").write_bytes(b"no")
    assert "x.edit" in refusal("diff", edit, tmp_path / "x.edit")


# --- inspect


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
    report = json.loads(run("inspect", edit, "--json").stdout)
    shown, loaded = report["values"], load(edit)
    touched = loaded.touched()
    rows = [row for row in report["rows"] if row["kind"] != "token"]
    assert sum(block["count"] for block in shown["blocks"]) == shown["count"]
    assert [part["kind"] for part in shown["parts"]] == [part.kind for part in loaded.parts]
    assert shown["count"] == sum(map(len, touched.values())) == sum(row["count"] for row in rows)
    assert shown["size"] == sum(math.prod(loaded.shapes[name]) for name in touched)
    assert shown["naive_bytes"] == 4 * shown["count"] > shown["index_bytes"]
    assert shown["file"] == {
        "name": "bear.edit",
        "bytes": edit.stat().st_size,
        "sha256": hashlib.sha256(edit.read_bytes()).hexdigest(),
    }
    assert shown["provenance"]["noun"] == "bear" and shown["base_name"] == "tiny"


def test_inspect_refuses_a_file_that_is_no_edit(tmp_path: Path) -> None:
    (tmp_path / "x.edit").write_bytes(b"not an edit")
    assert "x.edit" in refusal("inspect", tmp_path / "x.edit")
    assert "absent.edit" in refusal("inspect", tmp_path / "absent.edit")


def test_markup_and_control_characters_of_a_file_are_only_text(tmp_path: Path, edit: Path) -> None:
    loaded = load(edit)
    save(replace(loaded, provenance={"method": "[red]x[/red]\x1b[2Jy", "noun": "[/]"}), tmp_path / "odd.edit")
    shown = run("inspect", tmp_path / "odd.edit").stdout
    assert "[red]x[/red]" in shown and "\x1b" not in shown


def test_every_kind_of_part_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
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
    save(small_edit(*(part for part in weight_parts() if isinstance(part, LowRankDelta))), tmp_path / "lora.edit")
    shown = run("inspect", tmp_path / "lora.edit").stdout
    assert "Blocks, norm added" in shown and "rank 2" in shown and "as int32" not in shown


# --- verify


def test_every_check_of_a_located_edit_holds(edit: Path, model: Path) -> None:
    said = run("verify", edit, model, "--device", "cpu").stdout
    for word in ("bear.edit on tiny", "base", "touched entries", "other tensors", "new words", "reverted", "ok"):
        assert word in said, word
    assert "failed" not in said
    shown = json.loads(run("verify", edit, model, "--device", "cpu", "--json").stdout)
    checks = shown["evidence"]["checks"]
    assert shown["accepted"] and len(checks) >= 6 and all(check["passed"] for check in checks)


def test_a_check_that_fails_is_status_1(edit: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Overwritten, "put_back", lambda self, tensors: self.forget())
    said = run("verify", edit, model, "--device", "cpu", status=1).stdout
    assert "failed" in said and "before" in said and "after" in said


def test_another_base_is_one_line_with_both_names(tmp_path: Path, edit: Path) -> None:
    tiny_pipeline(seed=5).save_pretrained(tmp_path / "other")
    line = refusal("verify", edit, tmp_path / "other", "--device", "cpu")
    assert "bear.edit: made for base tiny" in line and "this model is other" in line
    assert "absent.edit" in refusal("verify", tmp_path / "absent.edit", tmp_path / "other")


# --- files of others


def test_what_is_exported_as_a_lora_comes_in_again(tmp_path: Path, files: dict[str, Path], model: Path) -> None:
    lora, out = tmp_path / "x.safetensors", tmp_path / "back.edit"
    said = run("edit", "export", files["added"], "--to", "kohya", "-o", lora, "--model", model).stdout
    assert "relative error" in said and "nothing was left out" in said and lora.is_file()
    run("edit", "import", lora, "-o", out, "--model", model)
    back = next(part for part in load(out).parts if isinstance(part, LowRankDelta))
    assert torch.equal(back.product(NAME), load(files["added"]).parts[0].product(NAME))  # type: ignore[union-attr]
    assert load(out).provenance["format"] == "lora"
    assert "found a file" in refusal("edit", "export", files["added"], "--to", "kohya", "-o", lora, "--model", model)
    assert "expected a file or folder, found none" in refusal(
        "edit", "import", tmp_path / "none", "-o", tmp_path / "y.edit", "--model", model
    )


def test_the_verbs_are_the_commands_of_the_group(edit: Path) -> None:
    assert run("inspect", edit).stdout == run("edit", "inspect", edit).stdout
