"""A tiny model on disk, a folder of pictures, and the command line run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from photopic.cli.main import app
from photopic.data.pictures import png_bytes
from photopic.data.scenes import Background, Placement, compose
from tests.tiny import IMAGE_SIZE, tiny_pipeline
from tests.tiny_encoders import saved_dual_encoder


def run(*arguments: object, status: int = 0) -> Result:
    """Run ``photopic`` and check its exit status."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def refusal(*arguments: object) -> str:
    """The one line of an error a user caused."""
    result = run(*arguments, status=2)
    lines = [line for line in result.stderr.splitlines() if line.startswith("photopic: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random pipeline."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny dual encoder."""
    return saved_dual_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of a panda, one with a caption."""
    folder = tmp_path_factory.mktemp("photos")
    for index, colour in enumerate(("red", "blue", "green")):
        scene = compose([Placement("panda", "fluent-modern", (0.5, 0.5), 0.8)], Background(colour), size=IMAGE_SIZE)
        (folder / f"{index}.png").write_bytes(png_bytes(scene.image))
    (folder / "0.txt").write_text("a bear on a red background")
    return folder


@pytest.fixture(scope="session")
def edit(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edit of the tiny model."""
    file = tmp_path_factory.mktemp("edits") / "bear.edit"
    run("locate", "neurons", photos, "--noun", "bear", "--output", file, *quick(model))
    return file


def quick(model: Path, steps: int = 2) -> tuple[object, ...]:
    """Options of a search that takes a second."""
    few = ("--batch", 2, "--density", 0.1, "--preservation-count", 2, "--evaluation", 2)
    return ("--model", model, "--steps", steps, *few)
