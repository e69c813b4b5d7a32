"""``photopic tune tuners``: a file that is a classifier, and bad input as one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from photopic.data.emoji_tasks import emoji_task
from photopic.learning.tuned_classifier import TunedClassifier
from photopic.models.dual_encoder import DualEncoder
from tests.cli.conftest import refusal, run

BRIEF = ("--steps", 2, "--batch", 4, "--length", 2)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> tuple[Path, Path]:
    """A folder of classes and a tiny model."""
    folder = tmp_path_factory.mktemp("tuners")
    data, _ = emoji_task("held-out-style", classes=3, train_per_class=3, test_per_class=1, size=32)
    for number, (picture, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        (folder / "pictures" / data.names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "pictures" / data.names[label] / f"{number}.png")
    return folder / "pictures", encoder


def test_a_classifier_is_learnt_and_read_back(tmp_path: Path, places: tuple[Path, Path]) -> None:
    data, model = places
    file = tmp_path / "pets.edit"
    said = run("tune", "tuners", data, "--model", model, "--shots", 2, "--preset", "tri", "--out", file, *BRIEF).stdout
    assert "trained numbers" in said and "accuracy on 3 pictures not learnt from" in said
    assert [each.name for each in tmp_path.iterdir()] == ["pets.edit"]  # the run folder is gone
    classifier = TunedClassifier.load(DualEncoder.load(model), file)
    assert len(classifier.predict(emoji_task("groups", classes=2, size=32)[1].images[:2])) == 2
    run("inspect", file)
    assert "found a file" in refusal("tune", "tuners", data, "--model", model, "--out", file, *BRIEF)


def test_bad_input_is_one_line(tmp_path: Path, places: tuple[Path, Path]) -> None:
    data, model = places
    to = ("--model", model, "--out", tmp_path / "x.edit", *BRIEF)
    assert "expected 9 pictures or more to draw 9 shots, found 3" in refusal("tune", "tuners", data, "--shots", 9, *to)
    assert "expected one sub-folder a class" in refusal("tune", "tuners", next(data.iterdir()), *to)
    assert not list(tmp_path.iterdir())
