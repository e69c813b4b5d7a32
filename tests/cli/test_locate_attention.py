"""``photopic locate attention`` and ``photopic locate explain``: files, reports and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
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


def test_explain_writes_one_page_that_fetches_nothing(tmp_path: Path, model: Path, edit: Path, photos: Path) -> None:
    report = tmp_path / "report.html"
    options = ("--model", model, "--steps", 1, "-n", 2, "-o", report)
    out = run("locate", "explain", edit, "--images", photos, "--beside", edit, *options, "--json").stdout
    numbers = json.loads(out)
    assert set(numbers) == {"touched weights", "attention", "identifier", "disentanglement"}
    assert (
        numbers["disentanglement"]["values"]["pairs"]["bear + bear"]["shared"]
        == numbers["touched weights"]["values"]["count"]
    )
    html = report.read_text()
    for heading in ("Where the words are read", "The edit and its word", "Beside other edits", "Which weights"):
        assert f"<h2>{heading}</h2>" in html
    assert "Reconstruction loss on the pictures given" in html and "&lt;mine&gt;" in html
    assert "<script" not in html and not re.search(r'(?:src|href)="(?!data:)', html)
    assert "a file" in refusal("locate", "explain", edit, *options)


def test_explain_without_pictures_and_with_values(
    tmp_path: Path, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli.conftest import quick

    run("locate", "neurons", photos, "--noun", "bear", "-o", tmp_path / "b.edit", "--tune", 2, *quick(model))
    monkeypatch.chdir(tmp_path)
    run("locate", "explain", "b.edit", "--model", model, "--steps", 1, "-n", 1)
    html = (tmp_path / "b.html").read_text()
    assert "At fewer bits" in html and "2 bits" in html and "give pictures of the subject with --images" in html


def test_explain_refuses_in_one_line(tmp_path: Path, model: Path, edit: Path) -> None:
    options = ("--model", model, "--steps", 1)
    assert "no-such" in refusal("locate", "explain", tmp_path / "no-such.edit", *options)
    assert "is the edit itself" in refusal("locate", "explain", edit, "-o", edit, *options)
    assert "existing folder" in refusal("locate", "explain", edit, "-o", tmp_path / "no" / "r.html", *options)
