"""``photopic guard fit`` and ``check``: a guard of a tiny model on disk, verdicts as a table and as JSON, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

from photopic.cli.guard_serve import fitted
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.fingerprint import fingerprint
from photopic.guard.guarded import load_guarded
from tests.cli.conftest import refusal, run
from tests.tiny_classifiers import saved_classifier

LABELS = ("red thing", "green thing", "blue thing")
COLOURS = np.array([[230, 30, 30], [30, 220, 30], [30, 30, 230]])


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random classifier whose head tells the colours apart: the class whose mean feature is nearest."""
    return saved_classifier(tmp_path_factory.mktemp("nets") / "net", LABELS, COLOURS)


def draw(folder: Path, count: int, seed: int, colour: np.ndarray) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = (colour + rng.normal(0, 30, (16, 16, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of each class."""
    folder = tmp_path_factory.mktemp("clean")
    for number, label in enumerate(LABELS):
        draw(folder / label, 20, number, COLOURS[number])
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of nothing the model knows."""
    return draw(tmp_path_factory.mktemp("others") / "grey", 10, 7, np.array([120, 120, 120]))


@pytest.fixture(scope="module")
def guard(net: Path, clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("guards") / "net.guard"
    done = run("guard", "fit", net, clean, "-o", file, "--scorer", "knn", "--rate", 0.1)
    assert "10.0%" in done.stdout and "photopic guard check" in done.stdout
    return file


def test_a_guard_accepts_clean_pictures_and_rejects_others(guard: Path, net: Path, clean: Path, others: Path) -> None:
    found = json.loads(run("guard", "check", guard, others, "--model", net, "--json", status=1).stdout)
    assert found["rejected"] >= 8 and found["expected_false_positive_rate"] == pytest.approx(0.1)
    first = found["pictures"][0]
    assert first["picture"] == "0.png" and first["label"] in LABELS and first["reason"]
    evidence = first["evidence"]["open_set"]
    assert first["accepted"] == (evidence["score"] <= evidence["threshold"])
    known = json.loads(run("guard", "check", guard, clean, "--model", net, "--json", status=1).stdout)
    assert known["rejected"] <= 15 and {row["picture"].split("/")[0] for row in known["pictures"]} == set(LABELS)
    accepted = next(row["picture"] for row in known["pictures"] if row["accepted"])
    single = json.loads(run("guard", "check", guard, clean / accepted, "--model", net, "--json").stdout)
    assert single["accepted"] == 1 and single["pictures"][0]["picture"] == Path(accepted).name


def test_the_table_says_what_was_decided_and_what_to_mind(guard: Path, net: Path, others: Path) -> None:
    text = " ".join(run("guard", "check", guard, others, "--model", net, status=1).stdout.split())
    assert "reject" in text and "10.0% are expected" in text and "mind:" in text


@pytest.mark.parametrize("words", [(), ("--backdoor",)], ids=["plain", "backdoor"])
def test_serve_fits_the_guard_that_fit_writes_of_the_same_folder(
    net: Path, others: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    clean = tmp_path / "clean"
    for number, label in enumerate(LABELS):
        draw(clean / label, 30, number, COLOURS[number])
    run("guard", "fit", net, clean, "-o", tmp_path / "a.guard", *words)
    fitted(str(net), None, clean, "cpu", backdoor=bool(words)).save(tmp_path / "b.guard")
    pictures = [np.asarray(Image.open(file)) for file in sorted([*others.glob("*.png"), *clean.glob("*/1.png")])]
    one, other = (
        [each.to_dict() for each in load_guarded(tmp_path / name, str(net))(pictures)]
        for name in ("a.guard", "b.guard")
    )
    assert one == other and len({each["verdict"]["accepted"] for each in one}) == 2


def test_shots_and_scorers_that_need_classes(net: Path, clean: Path, others: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.guard"
    run("guard", "fit", net, clean, "--scorer", "fs-knns", "--reject", others, "--rate", 0.1, "-o", few)
    found = json.loads(run("guard", "check", few, others, "--model", net, "--json", status=1).stdout)
    assert found["rejected"] >= 8
    with_settings = ("--scorer", "rmds", "--covariance", "empirical", "--rate", 0.1)
    run("guard", "fit", net, clean, *with_settings, "-o", tmp_path / "rmds.guard")
    assert "--covariance: scorer knn has none" in refusal(
        "guard", "fit", net, clean, "--scorer", "knn", "--covariance", "empirical", "-o", tmp_path / "x"
    )
    assert "needs references" in refusal("guard", "fit", net, clean, "--scorer", "ssd", "-o", tmp_path / "x")
    alone = clean / LABELS[0]
    assert "one sub-folder a class" in refusal("guard", "fit", net, alone, "--scorer", "rmds", "-o", tmp_path / "x")
    run("guard", "fit", net, alone, "--rate", 0.1, "-o", tmp_path / "alone.guard")  # msp needs no classes


def test_to_check_and_to_inspect_never_imports_diffusers(guard: Path, net: Path, others: Path, tmp_path: Path) -> None:
    """Both answer in a fraction of the seconds that its imports take."""
    linear = torch.nn.Linear(2, 2)
    base = fingerprint({"unet": linear}, "tiny", ["unet.weight"])
    edit_file.save(Edit((ZeroedWeights({"unet.weight": torch.tensor([1])}),), base, {}), tmp_path / "one.edit")
    check, look = ["guard", "check", guard, others, "--model", net], ["inspect", tmp_path / "one.edit"]
    code = f"""
import sys
from typer.testing import CliRunner
from photopic.cli.main import app
codes = [CliRunner().invoke(app, words).exit_code for words in ({[*map(str, check)]}, {[*map(str, look)]})]
sys.exit("diffusers" in sys.modules or codes != [1, 0])
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0


def test_mistakes_are_one_line(guard: Path, net: Path, clean: Path, others: Path, tmp_path: Path) -> None:
    assert "add --overwrite" in refusal("guard", "fit", net, clean, "-o", guard)
    assert "clean inputs, found 60" in refusal("guard", "fit", net, clean, "--rate", 0.001, "-o", tmp_path / "x")
    assert not list(tmp_path.iterdir())
    assert "--model FOLDER" in refusal("guard", "check", guard, others)
    assert "expected a file, found nothing" in refusal("guard", "check", tmp_path / "none", others)
    assert "expected a guard file" in refusal("guard", "check", others / "0.png", others)
    assert "expected a file, found a folder" in refusal("guard", "check", others, others)
    other = tmp_path / "other"
    torch.manual_seed(1)
    config = ResNetConfig.from_pretrained(net)
    ResNetForImageClassification(config).save_pretrained(other)
    (other / "preprocessor_config.json").write_text((net / "preprocessor_config.json").read_text())
    assert "fitted on net" in refusal("guard", "check", guard, others, "--model", other)
