"""``photopic generate`` without words: pictures of latents under edits, seeds that stand alone, options that do not fit."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from photopic.cli import main
from photopic.core.edits import Edit, SteeringVector
from photopic.core.edits.file import save
from photopic.data.pictures import read_settings
from photopic.models.generator import Generator
from tests.cli.conftest import refusal, run
from tests.method_cases import tiny_generator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_generator().save(tmp_path / "mine")
    return tmp_path / "mine"


def test_pictures_of_latents_are_written_with_their_settings_and_follow_their_own_seed(folder: Path, tmp_path: Path):
    said = run("generate", "--model", folder, "-n", 3, "--seed", 4, "-o", tmp_path / "out").stdout
    assert "0001.png to 0003.png, and sheet-0001-0003.png" in said
    run("generate", "--model", folder, "-n", 1, "--seed", 6, "-o", tmp_path / "out")
    third, again = (np.array(Image.open(tmp_path / "out" / f"{number}.png")) for number in ("0003", "0004"))
    assert third.shape == (16, 16, 3) and (third == again).all()
    settings = read_settings(tmp_path / "out" / "0002.png")
    assert (settings["seed"], settings["model"], settings["truncation"]) == (5, "mine", 1.0)


def test_an_edit_moves_the_mean_picture_and_weight_0_does_not(folder: Path, tmp_path: Path):
    model = tiny_generator()
    save(Edit((SteeringVector({"mapping": 3 * torch.ones(6)}),), model.fingerprint()), tmp_path / "way.edit")
    base = ("generate", "--model", folder, "-n", 2, "--truncation", 0)
    run(*base, "-o", tmp_path / "plain")
    run(*base, "-o", tmp_path / "moved", "--with", tmp_path / "way.edit")
    run(*base, "-o", tmp_path / "still", "--with", tmp_path / "way.edit", "--weight", 0)
    plain, moved, still = (np.array(Image.open(tmp_path / n / "0001.png")) for n in ("plain", "moved", "still"))
    assert (plain == np.array(Image.open(tmp_path / "plain" / "0002.png"))).all()  # truncation 0: one picture
    assert (plain != moved).any() and (plain == still).all()


def test_options_of_words_and_denoising_are_refused(folder: Path, tmp_path: Path):
    out = ("-o", tmp_path / "out")
    assert "prompt:" in refusal("generate", "a bear", "--model", folder, *out)
    assert "--steps:" in refusal("generate", "--model", folder, "--steps", 5, *out)
    assert "--control:" in refusal("generate", "--model", folder, "--control", "x", *out)
    assert "--truncation:" in refusal("generate", "a bear", "--truncation", 0.5, *out)
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_drawn_stay_when_the_rest_is_interrupted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def synthesize(self: Generator, w: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(w))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, w, *rest)

    original = Generator.synthesize
    monkeypatch.setattr(Generator, "synthesize", synthesize)
    CliRunner().invoke(main.app, ["generate", "--model", str(folder), "-n", "20", "-o", str(tmp_path / "out")])
    assert calls == [16, 4] and len(list((tmp_path / "out").glob("[0-9]*.png"))) == 16


def test_a_bar_shows_how_many_are_drawn(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[object] = []

    class Shown:
        def add_task(self, name: str, *, total: int, remark: str) -> str:
            said.append((name, total))
            return name

        def update(self, task: str, *, completed: int) -> None:
            said.append(completed)

    monkeypatch.setattr("photopic.report.progress.bars", lambda: nullcontext(Shown()))
    assert run("generate", "--model", folder, "-n", 20, "-o", tmp_path / "out").exit_code == 0
    assert said == [("drawing", 20), 16, 20]
