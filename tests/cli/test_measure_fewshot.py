"""``photopic measure fewshot``: a page and JSON from a folder of pictures, resumed after Ctrl-C, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import refusal, run
from tests.tiny_encoders import SIDE

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "white": (230, 230, 230)}
QUICK = ("--methods", "zero-shot,linear-probe,full", "--shots", "1,2", "--seeds", 2, "--steps", 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of each of four colours, in sub-folders."""
    folder = tmp_path_factory.mktemp("data") / "colours"
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.normal(colour, 30, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_it_writes_a_page_and_json(encoder: Path, pictures: Path, tmp_path: Path) -> None:
    before = (encoder / "model.safetensors").read_bytes()
    out = tmp_path / "curve.html"
    result = run("measure", "fewshot", pictures, "--model", encoder, "-o", out, "--json", *QUICK)
    report = json.loads(result.stdout)
    assert [(row["method"], row["shots"]) for row in report["rows"]] == [
        (name, shots) for name in ("zero-shot", "linear-probe", "full") for shots in (1, 2)
    ]
    assert report["values"]["test_pictures"] == [12] and report["provenance"]["config"]["steps"] == 2
    page = out.read_text()
    assert page.count("<svg") == 1 and page.count('class="range c0"') == 2 and "<script" not in page
    assert "Gain over zero-shot" in page and "shots a class" in page
    assert (encoder / "model.safetensors").read_bytes() == before
    assert not out.with_name("curve.html.run").exists()


def test_base_to_new_shows_both_halves(encoder: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.html"
    run("measure", "fewshot", pictures, "--model", encoder, "-o", out, "--base-to-new", *QUICK)
    page = out.read_text()
    assert "harmonic mean" in page and "cannot name classes they were not shown" in page


def test_ctrl_c_keeps_what_is_done(
    encoder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from photopic.measure import few_shot

    out, measured = tmp_path / "curve.html", few_shot._measured
    calls: list[int] = []

    def interrupted(*arguments: object) -> dict[str, object]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(few_shot, "_measured", interrupted)
    result = run("measure", "fewshot", pictures, "--model", encoder, "-o", out, *QUICK, status=130)
    assert "run the same command again to go on" in result.stderr
    kept = list((tmp_path / "curve.html.run" / "measured").iterdir())
    assert len(kept) == 3
    run("measure", "fewshot", pictures, "--model", encoder, "-o", out, *QUICK)
    assert len(calls) == 4 + 9 - 3 and out.exists()  # zero-shot is measured once


def test_an_emoji_task_needs_no_pictures(encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "emoji.html"
    options = ("--methods", "zero-shot,tip-adapter", "--shots", "1", "--seeds", 1, "--classes", 3)
    run("measure", "fewshot", "emoji:held-out-style", "--model", encoder, "-o", out, *options)
    assert "fewer than three seeds" in out.read_text()


def test_what_is_wrong_is_one_line(encoder: Path, pictures: Path, tmp_path: Path) -> None:
    start = ("measure", "fewshot", pictures, "--model", encoder, "-o", tmp_path / "no.html")
    assert "did you mean lora?" in refusal(*start, "--methods", "zero-shot,lorra")
    assert "--shots: expected whole numbers with commas between" in refusal(*start, "--shots", "1 2")
    assert "expected 9 pictures or more to draw 9 shots, found 3" in refusal(*start, "--shots", "9")
    assert "--methods: expected one or more" in refusal(*start, "--methods", ",")
    assert "'--rate': expected more than 0, found 0.0" in refusal(*start, "--rate", 0)
    assert "is for emoji tasks" in refusal(*start, "--classes", 3)
    assert "held-out-style" in refusal(
        "measure", "fewshot", "emoji:held-out", "--model", encoder, "-o", tmp_path / "no.html"
    )
    assert not list(tmp_path.iterdir())
