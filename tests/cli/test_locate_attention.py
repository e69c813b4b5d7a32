"""``photopic locate attention``: files and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from photopic.core.mapfile import load
from photopic.data.pictures import read_settings
from tests.cli.conftest import refusal, run

PROMPT = "a bear on a red background"


def test_attention_writes_a_picture_a_word_a_sheet_and_the_numbers(tmp_path: Path, model: Path) -> None:
    options = ("--word", "bear", "--word", "red background", "--model", model, "--steps", 1, "-o", tmp_path / "out")
    out = run("locate", "attention", PROMPT, *options).stdout
    names = ["0001-01-bear.png", "0001-02-red-background.png", "0001-attention.safetensors", "0001-picture.png"]
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [*names, "0001-sheet.png"]
    found = load(tmp_path / "out" / names[2])
    assert found.labels == ("bear", "red background") and found.provenance["prompt"] == PROMPT
    assert "bear: " in out and "0001-sheet.png" in out
    settings = read_settings(tmp_path / "out" / names[0])
    assert settings["word"] == "bear" and settings["seed"] == 0
    with Image.open(tmp_path / "out" / names[0]) as one, Image.open(tmp_path / "out" / names[3]) as picture:
        assert one.size == picture.size == (256, 256) and not np.array_equal(np.array(one), np.array(picture))
    run("locate", "attention", PROMPT, *options)
    assert (tmp_path / "out" / "0002-sheet.png").exists() and (tmp_path / "out" / "0001-sheet.png").exists()


def test_attention_of_every_word_with_an_edit(tmp_path: Path, model: Path, edit: Path) -> None:
    run("locate", "attention", "a <mine> bear", "--with", edit, "--model", model, "--steps", 1, "-o", tmp_path)
    found = load(tmp_path / "0001-attention.safetensors")
    assert found.labels == ("a", "<mine>", "bear") and len(found.provenance["edits"]) == 1
    assert (tmp_path / "0001-02-mine.png").exists()


def test_attention_refuses_in_one_line(tmp_path: Path, model: Path) -> None:
    line = refusal(
        "locate", "attention", PROMPT, "--word", "cat", "--model", model, "--steps", 1, "-o", tmp_path / "out"
    )
    assert "'cat' is not a word of the prompt" in line and not (tmp_path / "out").exists()
