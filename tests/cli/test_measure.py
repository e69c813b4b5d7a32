"""``photopic measure`` on a tiny classifier in a folder: a page, JSON, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from photopic.core.view import Lines, Section
from photopic.report.axes import Axes
from photopic.report.html import render
from tests.cli.conftest import refusal, run
from tests.tiny_classifiers import CLASSES, class_folder

QUICK = ("--pictures", 1, "--perturbed", 1, "--samples", 20, "--patch", 4)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ViT of two layers."""
    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(image_size=16, patch_size=8, id2label=dict(enumerate(CLASSES)), **sizes)
    ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 16, "width": 16}}))
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures a class, in sub-folders."""
    return class_folder(tmp_path_factory.mktemp("data") / "pictures")


def test_rank_writes_a_page_and_json(classifier: Path, classes: Path, tmp_path: Path) -> None:
    before = (classifier / "model.safetensors").read_bytes()
    out = tmp_path / "rank.html"
    result = run("measure", "rank", classifier, classes, "-o", out, "--json", *QUICK)
    report = json.loads(result.stdout)
    layers = list(dict.fromkeys(row["layer"] for row in report["rows"]))
    assert layers[-1] == "logits" and len(layers) == 4  # embeddings, two blocks, logits
    assert {row["tool"] for row in report["rows"]} == {"jacobian", "perturbation"}
    assert report["values"]["free"] == 48 and report["values"]["classification"]["judge"] == "labels"
    assert report["provenance"]["images"] == 20
    page = out.read_text()
    assert page.count("<svg") == 4 and "<script" not in page and "published" in page and "tiny-vit" in page
    assert "1e-08: below what this arithmetic resolves" in page
    assert (classifier / "model.safetensors").read_bytes() == before


def test_rank_of_pictures_without_classes_is_judged_by_the_model(
    classifier: Path, classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rank.html"
    options = ("--tool", "classification", "--tool", "jacobian", "--threshold", 1e-9, "--precision", "float64")
    result = run("measure", "rank", classifier, classes / "mug", "-o", out, "--json", *options, *QUICK)
    report = json.loads(result.stdout)
    assert report["values"]["classification"]["judge"] == "own predictions"
    assert {row["tool"] for row in report["rows"]} == {"jacobian"}
    assert {row["threshold"] for row in report["rows"] if row["rule"] == "given"} == {1e-9}
    assert all(row["rank"] is not None for row in report["rows"])
    assert "own predictions" in out.read_text()


def test_deficit_writes_a_page_and_json(classifier: Path, classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "deficit.html"
    arguments = ("measure", "deficit", classifier, classes, "-o", out, "--steps", 50, "--keep", 2)
    report = json.loads(run(*arguments, "--json").stdout)
    assert {row["class"] for row in report["rows"]} == set(CLASSES) and len(report["rows"]) == 12
    assert all(len(row["support"]) <= 2 for row in report["rows"])
    page = out.read_text()
    assert "exact zeros, all pictures" in page and "brown owl" in page
    assert refusal(*arguments).endswith("choose another name or add --overwrite")
    said = run(*arguments, "--overwrite", "--class", "mug").stdout
    assert said.startswith(f"{out}: ") and "open it in a browser" in said


def test_dependencies_writes_a_page_and_json(classifier: Path, classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "dependencies.html"
    result = run("measure", "dependencies", classifier, classes, "-o", out, "--error", 0.9, "--lambdas", 4, "--json")
    report = json.loads(result.stdout)
    assert [row["class"] for row in report["rows"]] == list(CLASSES)
    assert report["values"]["warnings"] and report["provenance"]["images"] == 20
    page = out.read_text()
    assert "How many depend" in page and "expected at least" in page and "<svg" in page
    run(
        "measure",
        "dependencies",
        classifier,
        classes,
        "-o",
        tmp_path / "b.html",
        "--other",
        classifier,
        "--lambdas",
        3,
    )


def test_a_function_of_the_users_own_makes_the_model(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_here.py").write_text("from tests.tiny_classifiers import tiny_classifier as net")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "rank.html"
    options = ("--tool", "classification", "--json")
    report = json.loads(run("measure", "rank", "made_here:net", classes, "-o", out, *options).stdout)
    assert report["provenance"]["model"] == "tiny-cnn"
    assert "has no function no" in refusal("measure", "rank", "made_here:no", classes, "-o", tmp_path / "b.html")


def test_what_is_wrong_is_one_line(classifier: Path, classes: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "x.html")
    assert "no such model" in refusal("measure", "rank", "emoji-nothing", classes, *out)
    assert "expected a file or folder, found none" in refusal("measure", "rank", classifier, tmp_path / "nowhere", *out)
    (tmp_path / "empty").mkdir()
    assert "found an empty folder" in refusal("measure", "deficit", classifier, tmp_path / "empty", *out)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    assert "expected at least one image, found 1 other entries" in refusal(
        "measure", "rank", classifier, tmp_path / "texts", *out
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("hello")
    assert "expected a readable image" in refusal("measure", "rank", classifier, tmp_path / "broken", *out, *QUICK)
    assert "found pictures without classes" in refusal("measure", "deficit", classifier, classes / "mug", *out)
    assert "has no class 'spoon'; nearest: " in refusal(
        "measure", "deficit", classifier, classes, *out, "--class", "spoon"
    )
    assert "larger than the network's input of 16 x 16" in refusal(
        "measure", "rank", classifier, classes, *out, "--patch", 17
    )
    assert "matches no submodule" in refusal("measure", "rank", classifier, classes, *out, "--layer", "nowhere")
    assert not (tmp_path / "x.html").exists()


def test_curves_are_drawn_within_their_axes() -> None:
    lines = [("a <b>", [(1.0, 0.0), (10.0, 3.0), (100.0, 7.0)]), ("flat", [(1.0, 7.0), (100.0, 7.0)])]
    drawn = Lines(lines, "k", "share", log_x=True)
    points = [tuple(map(float, pair.split(","))) for _, each in Axes(drawn).drawn() for pair in each.split()]
    assert points[0] == (64.0, 284.0) and points[2] == (864.0, 14.0) and points[1][0] == pytest.approx(464)
    assert [text for _, text in Axes(drawn).x_ticks()] == ["1", "10", "100"]
    assert [text for _, text in Axes(drawn).y_ticks()] == ["0", "2", "4", "6"]
    assert [text for _, text in Axes(Lines([("x", [(0.0, 1.0), (1.0, 1.0)])], x_names=["u", "v"])).x_ticks()] == [
        "u",
        "v",
    ]
    page = render("t", [Section("s", [drawn, Lines([("one point", [(1.0, 1e-3)])], log_y=True)])])
    assert "a &lt;b&gt;" in page and page.count("<polyline") == 3
