"""``photopic generate --layout``: pictures with their layout drawn over them, edits in their regions, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photopic.data.pictures import read_settings
from tests.cli.conftest import refusal, run

PROMPT = "a <mine> bear left of a cat on a red background"
BEAR = {"words": "<mine> bear", "box": [0.0, 0.0, 0.5, 1.0]}
CAT = {"words": "cat", "box": [0.5, 0.0, 1.0, 1.0]}


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    file = tmp_path / "layout.json"
    file.write_text(json.dumps({"regions": [BEAR, CAT]}))
    return file


def draw(model: Path, edit: Path, out: Path, *more: object) -> np.ndarray:
    """The first of two pictures."""
    run("generate", PROMPT, "--with", edit, "-n", 2, "-o", out, "--steps", 2, "--model", model, *more)
    return np.array(Image.open(out / "0001.png"))


def test_a_layout_changes_the_pictures_and_is_drawn_over_them(
    tmp_path: Path, model: Path, edit: Path, layout: Path
) -> None:
    plain = draw(model, edit, tmp_path / "plain")
    guided = draw(model, edit, tmp_path / "guided", "--layout", layout)
    strong = draw(model, edit, tmp_path / "strong", "--layout", layout, "--layout-strength", 9, "--repeats", 2)
    assert (plain != guided).any() and (guided != strong).any()
    names = [path.name for path in sorted((tmp_path / "guided").iterdir())]
    assert names == ["0001.png", "0002.png", "layout-0001-0002.png", "sheet-0001-0002.png"]
    sheet, over = (np.array(Image.open(tmp_path / "guided" / name)) for name in (names[3], names[2]))
    assert sheet.shape == over.shape and (sheet != over).any() and (sheet == over).mean() > 0.5
    said = read_settings(tmp_path / "strong" / "0001.png")["layout"]
    assert said["file"] == "layout.json" and (said["strength"], said["repeats"]) == (9.0, 2)


def test_edits_can_be_kept_to_their_regions(tmp_path: Path, model: Path, edit: Path, layout: Path) -> None:
    everywhere = draw(model, edit, tmp_path / "all", "--layout", layout)
    inside = draw(model, edit, tmp_path / "in", "--layout", layout, "--in-region")
    assert (everywhere != inside).any()
    assert read_settings(tmp_path / "in" / "0001.png")["layout"]["in_region"] is True


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        ([CAT], "<mine> has no region"),
        ([BEAR, CAT | {"words": "dog"}], "region 'dog' is not a subject of the prompt"),
        ([BEAR, CAT | {"box": [0.2, 0, 1, 1]}], "overlap in 30.0% of the picture"),
        ([BEAR | {"box": [0, 0, 2, 1]}, CAT], "expected a box inside 0 to 1"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(
    tmp_path: Path, model: Path, edit: Path, regions: list[dict[str, Any]], reason: str
) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({"regions": regions}))
    out = tmp_path / "out"
    line = refusal("generate", PROMPT, "--with", edit, "-o", out, "--model", model, "--layout", tmp_path / "bad.json")
    assert reason in line and not out.exists()


def test_options_that_need_a_layout_or_exclude_each_other_are_refused(
    tmp_path: Path, model: Path, edit: Path, layout: Path
) -> None:
    given = ("generate", PROMPT, "--with", edit, "-o", tmp_path / "out", "--model", model)
    assert "leave one out" in refusal(*given, "--layout", layout, "--arrange")
    assert "found --force" in refusal(*given, "--layout", layout, "--in-region", "--force")


def test_without_a_layout_the_prompt_gives_one_that_is_told_written_and_the_same_again(
    tmp_path: Path, model: Path, edit: Path
) -> None:
    found = run(
        "generate", PROMPT, "--with", edit, "-n", 2, "-o", tmp_path / "a", "--steps", 2, "--model", model, "--in-region"
    )
    assert "layout from the prompt: <mine> bear 0.02 0.28 to 0.46 0.72; cat 0.54 0.28 to 0.98 0.72" in found.stderr
    said = read_settings(tmp_path / "a" / "0001.png")["layout"]
    assert said["file"] == "the prompt" and [each["words"] for each in said["regions"]] == ["<mine> bear", "cat"]
    written = tmp_path / "a" / "layout-0001-0002.json"
    again = draw(model, edit, tmp_path / "b", "--layout", written, "--in-region")
    assert np.array_equal(again, np.array(Image.open(tmp_path / "a" / "0001.png")))
    own = draw(model, edit, tmp_path / "c", "--own-prompts")
    assert (own != draw(model, edit, tmp_path / "d", "--arrange")).any()
    (first, _) = read_settings(tmp_path / "c" / "0001.png")["layout"]["regions"]
    assert first["prompt"] == "a <mine> bear on a red background"


def test_the_same_layout_and_edits_as_controls(tmp_path: Path, model: Path, edit: Path, layout: Path) -> None:
    by_option = draw(model, edit, tmp_path / "option", "--layout", layout, "--in-region")
    given = ("generate", PROMPT, "-n", 2, "-o", tmp_path / "control", "--steps", 2, "--model", model)
    regions, guidance = f"regional_edits:layout={layout},edits={edit}", f"layout_guidance:layout={layout}"
    run(*given, "--control", guidance, "--control", regions)
    assert np.array_equal(by_option, np.array(Image.open(tmp_path / "control" / "0001.png")))
    assert read_settings(tmp_path / "control" / "0001.png")["controls"] == [guidance, regions]


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (
            "adaptive",
            "--control: expected one of adaptive_guidance, entropy_scaling, good_seeds, layout_guidance, linear_guidance, "
            "negative_token_merging, regional_edits, style_injection, found",
        ),
        ("adaptive_guidance:treshold=1", "adaptive_guidance: expected threshold=..., found 'treshold=1'"),
        ("adaptive_guidance:threshold=high", "adaptive_guidance: threshold: expected a number, found 'high'"),
        ("adaptive_guidance:threshold=nan", "adaptive_guidance: threshold: expected a finite number, found nan"),
        ("adaptive_guidance:threshold=2", "adaptive_guidance: threshold: expected 1 or less, found 2"),
        ("layout_guidance:repeats=2", "layout_guidance: expected layout, found none; write layout_guidance:layout=..."),
        ("layout_guidance:repeats=1.5", "layout_guidance: repeats: expected a whole number, found '1.5'"),
        ("layout_guidance:layout=no.json", "no.json: expected a file or folder, found none"),
    ],
)
def test_controls_that_do_not_exist_or_fit_are_refused(tmp_path: Path, model: Path, control: str, reason: str) -> None:
    line = refusal("generate", "a bear", "-o", tmp_path / "out", "--model", model, "--control", control)
    assert reason in line and not (tmp_path / "out").exists()


def test_a_control_changes_the_pictures(tmp_path: Path, model: Path) -> None:
    found = {}
    for name, more in (("plain", ()), ("early", ("--control", "adaptive-guidance:threshold=-1"))):
        run("generate", "a bear", "-n", 1, "-o", tmp_path / name, "--steps", 3, "--model", model, *more)
        found[name] = np.array(Image.open(tmp_path / name / "0001.png"))
    assert (found["plain"] != found["early"]).any()
