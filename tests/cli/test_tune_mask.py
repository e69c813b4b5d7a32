"""``photopic tune mask``: from a folder of classes or an emoji task to a file; bad input is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.edits import ZeroedWeights
from photopic.core.edits.file import load
from photopic.models.dual_encoder import DualEncoder
from tests.cli.conftest import refusal, run

BRIEF = ("--steps", 3, "--lr", 6e-3, "--batch", 4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, red in (("bear", 40), ("mug", 200)):
        (folder / name).mkdir()
        for number in range(3):
            noise = np.random.default_rng(number + red).integers(0, 55, (40, 36, 3)).astype(np.uint8)
            Image.fromarray(noise + np.array([red, 100, 100], np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_a_mask_is_learnt_from_a_folder(tmp_path: Path, pictures: Path, encoder: Path) -> None:
    file = tmp_path / "mine.edit"
    said = run("tune", "mask", pictures, "--model", encoder, "--shots", 2, "-o", file, *BRIEF).stdout
    assert "accuracy on 2 pictures not learnt from" in said
    assert "zero-shot" in said
    assert "with what was learnt" in said
    assert f"look inside with: photopic inspect {file}" in said
    assert [each.name for each in tmp_path.iterdir()] == ["mine.edit"]  # the run folder is gone
    edit = load(file)
    assert [type(part) for part in edit.parts] == [ZeroedWeights]
    assert edit.provenance["classes"] == ["bear", "mug"]
    model = DualEncoder.load(encoder)
    before = model.digest()
    with model.edits.applied(file):
        assert model.digest() != before
    assert model.digest() == before
    run("inspect", file)
    assert "found a file" in refusal("tune", "mask", pictures, "--model", encoder, "--shots", 2, "-o", file)
    whole = run("tune", "mask", pictures, "--model", encoder, "--shots", 3, "-o", file, "--overwrite", *BRIEF).stdout
    assert "every picture was learnt from" in whole


def test_a_mask_is_learnt_from_an_emoji_task(tmp_path: Path, encoder: Path) -> None:
    file = tmp_path / "style.edit"
    arguments = ("--model", encoder, "--shots", 1, "-o", file, "--dropout", 0, "--which", "all", *BRIEF)
    said = run("tune", "mask", "emoji:held-out-style", "--classes", 2, *arguments).stdout
    assert "accuracy on 40 pictures" in said
    assert "did you mean held-out-style?" in refusal("tune", "mask", "emoji:held-out", *arguments, "--overwrite")


def test_a_rate_that_could_switch_nothing_off_is_raised_with_a_note(
    tmp_path: Path, pictures: Path, encoder: Path
) -> None:
    arguments = ("--model", encoder, "--shots", 1, "--steps", 2, "--lr", 8e-5, "-o", tmp_path / "x.edit")
    noted = " ".join(run("tune", "mask", pictures, *arguments).stderr.split())
    assert "no weight could be switched off; using lr" in noted


def test_much_switched_off_is_noted(
    tmp_path: Path, pictures: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--model", encoder, "--shots", 2, "--steps", 3, "-o")
    assert "is a lot to switch off" in run("tune", "mask", pictures, *arguments, tmp_path / "a.edit").stderr
    monkeypatch.setattr("photopic.tune.few_shot.mask_tuning.MUCH", 1.0)
    assert "is a lot" not in run("tune", "mask", pictures, *arguments, tmp_path / "b.edit").stderr


def test_bad_input_is_one_line(tmp_path: Path, pictures: Path, encoder: Path) -> None:
    options = ("--model", encoder, "-o", tmp_path / "x.edit", "--shots")
    assert "class bear: expected 4 pictures or more to draw 4 shots, found 3" in refusal(
        "tune", "mask", pictures, *options, 4
    )
    assert "one sub-folder a class" in refusal("tune", "mask", pictures / "bear", *options, 1)
    one = tmp_path / "one"
    (one / "bear").mkdir(parents=True)
    assert "bear" in refusal("tune", "mask", one, *options, 1)  # a class without pictures
    Image.new("RGB", (8, 8)).save(one / "bear" / "1.png")
    assert "found only bear" in refusal("tune", "mask", one, *options, 1)
    (one / "_").mkdir()
    Image.new("RGB", (8, 8)).save(one / "_" / "1.png")
    assert "token" in refusal("tune", "mask", one, *options, 1)
    assert "one {} where the name goes" in refusal("tune", "mask", pictures, *options, 1, "--template", "a photo")
    assert "for emoji tasks" in refusal("tune", "mask", pictures, *options, 1, "--classes", 2)
    assert "lr" in refusal("tune", "mask", pictures, *options, 1, "--lr", 0)
    assert "reach: expected above 1" in refusal("tune", "mask", pictures, *options, 1, "--reach", 1)
    assert not (tmp_path / "x.edit").exists()
    assert not (tmp_path / "x.edit.run").exists()
