"""``photopic locate explain``: one page, its numbers as JSON, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import quick, refusal, run


def test_it_writes_one_page_that_fetches_nothing(tmp_path: Path, model: Path, edit: Path, photos: Path) -> None:
    report = tmp_path / "report.html"
    options = ("--model", model, "--steps", 1, "-n", 2, "-o", report)
    out = run("locate", "explain", edit, "--images", photos, "--beside", edit, *options, "--json").stdout
    numbers = json.loads(out)["probes"]
    assert set(numbers) == {"touched weights", "attention", "identifier", "disentanglement"}
    (pair,) = numbers["disentanglement"]["values"]["pairs"].values()
    assert pair["shared"] == numbers["touched weights"]["values"]["count"]
    html = report.read_text()
    for heading in ("Where the words are read", "The edit and its word", "Beside other edits", "Which weights"):
        assert f"<h2>{heading}</h2>" in html
    assert "Reconstruction loss on the pictures given" in html and "&lt;mine&gt;" in html
    assert "<script" not in html and not re.search(r'(?:src|href)="(?!data:)', html)
    assert "a file" in refusal("locate", "explain", edit, *options)


def test_without_pictures_and_with_values(
    tmp_path: Path, model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("locate", "neurons", photos, "--noun", "bear", "-o", tmp_path / "b.edit", "--tune", 2, *quick(model))
    monkeypatch.chdir(tmp_path)
    run("locate", "explain", "b.edit", "--model", model, "--steps", 1, "-n", 1)
    html = (tmp_path / "tiny-explain.html").read_text()
    assert "At fewer bits" in html and "2 bits" in html and "give pictures of the subject with --images" in html


def test_it_refuses_in_one_line(tmp_path: Path, model: Path, edit: Path) -> None:
    options = ("--model", model, "--steps", 1)
    assert "no-such" in refusal("locate", "explain", tmp_path / "no-such.edit", *options)
    assert str(edit) in refusal("locate", "explain", edit, "-o", edit, *options)
    assert "existing folder" in refusal("locate", "explain", edit, "-o", tmp_path / "no" / "r.html", *options)
