"""``photopic compose``: shows what the edits share, then writes one edit that remembers them; never over one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import photopic
from photopic.core.edits import Edit, LowRankDelta, SparseWeights, ZeroedWeights
from photopic.core.edits.file import load, save
from photopic.core.errors import EditError
from tests.cli.conftest import refusal, run

NAME = "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Edits of one tensor of the tiny model: two that shut, one that sets what the first shuts, and a low-rank one."""
    base = photopic.load(str(model), device="cpu").edits.fingerprint(NAME)
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
    said = run("compose", files["low"], files["high"], "-o", tmp_path / "both.edit").stdout
    assert "share 5 entries" in said and "Interference" in said and "up 0 cross 0/0 k" in said and "both.edit" in said
    assert touched(tmp_path / "both.edit") == list(range(15))
    parents = [parent["method"] for parent in load(tmp_path / "both.edit").provenance["parents"]]
    assert sorted(parents) == ["high", "low"]
    shown = run("inspect", tmp_path / "both.edit").stdout
    assert "Made of" in shown and "low, seed 3" in shown and "high, seed 3" in shown


def test_a_composed_word_keeps_its_noun(tmp_path: Path, files: dict[str, Path], edit: Path) -> None:
    run("compose", files["added"], edit, "-o", tmp_path / "both.edit", "--overlap", "first")
    run("compose", tmp_path / "both.edit", files["low"], "-o", tmp_path / "all.edit", "--overlap", "first")
    assert "say it before the noun: <mine> bear" in run("inspect", tmp_path / "all.edit").stdout


def test_a_clash_shows_the_table_and_writes_nothing(tmp_path: Path, files: dict[str, Path]) -> None:
    refused = run("compose", files["low"], files["set"], "-o", tmp_path / "x.edit", status=2)
    assert "share 4 entries" in refused.stdout and "union" in refused.stderr
    assert not (tmp_path / "x.edit").exists()


def test_each_policy_is_the_librarys(tmp_path: Path, files: dict[str, Path], model: Path) -> None:
    out = tmp_path / "out.edit"
    run("compose", files["low"], files["set"], "-o", out, "--overlap", "union")
    assert load(out).provenance["overlap"] == "union"
    assert [len(part.indices[NAME]) for part in load(out).parts if isinstance(part, ZeroedWeights | SparseWeights)] == [
        6,
        4,
    ]
    run("compose", files["low"], files["set"], "-o", out, "--overlap", "first")
    assert touched(out) == list(range(10)) and all(isinstance(part, ZeroedWeights) for part in load(out).parts)
    for policy in ("sum", "ties"):
        weights = ("--weight", 0.5, "--weight", 0.5)
        run("compose", files["low"], files["added"], "-o", out, "--overlap", policy, *weights, "--model", model)
        assert load(out).provenance["weights"] == [0.5, 0.5] and load(out).provenance["overlap"] == policy


def test_an_input_is_never_overwritten(tmp_path: Path, files: dict[str, Path]) -> None:
    before = files["low"].read_bytes()
    (tmp_path / "link.edit").symlink_to(files["low"])
    for output in (files["low"], tmp_path / "link.edit", files["low"].parent / "." / "low.edit"):
        assert "choose another --output" in refusal("compose", files["low"], files["high"], "-o", output)
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
    from tests.tiny import tiny_pipeline

    tiny_pipeline(seed=5).save_pretrained(tmp_path / "other")
    arguments = ("compose", files["low"], files["set"], "-o", tmp_path / "x.edit", "--overlap", "sum")
    line = refusal(*arguments, "--model", tmp_path / "other")
    assert "low.edit" in line and "tiny" in line and "other" in line
    with pytest.raises(EditError):
        load(tmp_path / "x.edit")
