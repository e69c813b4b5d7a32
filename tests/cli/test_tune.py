"""``photopic tune``: residuals, located weights, together and apart; bad input is one line."""

from __future__ import annotations

from pathlib import Path

from photopic.core.edits import SparseWeights, TokenResidual, ZeroedWeights
from photopic.core.edits.file import load
from tests.cli.conftest import quick, refusal, run

BRIEF = ("--steps", 2, "--batch", 2, "--evaluation", 2)


def test_a_residual_is_learnt_used_and_refused(tmp_path: Path, photos: Path, model: Path) -> None:
    file = tmp_path / "bear.edit"
    said = run("tune", "residual", photos, "--noun", "bear", "-o", file, "--model", model, *BRIEF).stdout
    assert f'next: photopic generate "a bear on a red background" --with {file}' in said
    assert [type(part) for part in load(file).parts] == [TokenResidual]
    assert [each.name for each in tmp_path.iterdir()] == ["bear.edit"]  # the run folder is gone
    draw = ("-n", 1, "--steps", 2, "--model", model, "--with", file, "-o", tmp_path / "out")
    run("generate", "a bear", *draw)
    assert "expected its word bear in the prompt" in refusal("generate", "a cat", *draw)
    assert "found a file" in refusal("tune", "residual", photos, "--noun", "bear", "-o", file, "--model", model)
    other = tmp_path / "other.edit"
    assert "zyzzyva" in refusal("tune", "residual", photos, "--noun", "zyzzyva", "-o", other, "--model", model)
    run("tune", "residual", photos, "--noun", "bear", "--token", "<mine>", "-o", other, "--model", model, *BRIEF)
    assert load(other).tokens == ("<mine>",)
    assert "new word <mine>; say it in the place of bear" in run("inspect", other).stdout
    run("generate", "a <mine> left of a bear", *draw, "--with", other)


def test_located_weights_are_tuned(tmp_path: Path, photos: Path, model: Path, edit: Path) -> None:
    file = tmp_path / "tuned.edit"
    run("tune", "located", edit, photos, "-o", file, "--bits", 2, "--model", model, *BRIEF, "--preservation-count", 1)
    assert any(isinstance(part, SparseWeights) and part.bits == 2 for part in load(file).parts)
    assert "run locate first" in refusal("tune", "located", file, photos, "-o", tmp_path / "x.edit", "--model", model)


def test_together_and_apart_again(tmp_path: Path, photos: Path, model: Path, edit: Path) -> None:
    second, both = tmp_path / "cat.edit", tmp_path / "both.edit"
    run("locate", "neurons", photos, "--noun", "bear", "--token", "<other>", "-o", second, "--seed", 1, *quick(model))
    options = ("--images", photos, "--images", photos, "-o", both, "--model", model, "--preservation-count", 1)
    said = run("tune", "together", edit, second, *options, *BRIEF).stdout
    assert 'next: photopic generate "a <mine> bear and a <other> bear"' in said
    assert set(load(both).tokens) == {"<mine>", "<other>"}
    run("inspect", both)
    run("tune", "apart", both, "-o", tmp_path / "parents")
    assert sorted(each.name for each in (tmp_path / "parents").iterdir()) == ["1-mine.edit", "2-other.edit"]
    assert "found a file" in refusal("tune", "apart", both, "-o", tmp_path / "parents")
    assert "take apart what" in refusal("tune", "apart", edit, "-o", tmp_path / "x")
    run("tune", "together", edit, second, *options, "--steps", 0, *BRIEF[2:], "--overwrite")
    run("tune", "apart", both, "-o", tmp_path / "parents", "--overwrite")
    for name, parent in (("1-mine.edit", load(edit)), ("2-other.edit", load(second))):
        found = load(tmp_path / "parents" / name)
        assert [part.digest() for part in found.parts] == [part.digest() for part in parent.parts]
        assert found.provenance == parent.provenance
    assert any(isinstance(part, ZeroedWeights) for part in load(both).parts)
    message = refusal("tune", "together", edit, second, "--images", photos, "-o", tmp_path / "y.edit")
    assert "an --images for each, found 2 and 1" in message
