"""``photopic tune action``: from a folder of clips to a model and a table; bad input is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.data.sprite_videos import SpriteVideos, actions, sprite_clips
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.action.few_shot_action import ActionRecogniser
from tests.cli.conftest import refusal, run

BRIEF = ("--frames", 3, "--way", 2, "--steps", 2, "--episodes", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of each of six classes, as animated pictures, parted into splits."""
    place = tmp_path_factory.mktemp("clips")
    found = sprite_clips("train", 7, chosen=actions("train")[:6], config=SpriteVideos(frames=3, size=32))
    for number, (video, label) in enumerate(zip(found.videos, found.labels.tolist(), strict=True)):
        inner = place / ("train", "validation", "test")[label // 2] / found.names[label]
        inner.mkdir(parents=True, exist_ok=True)
        first, *rest = [Image.fromarray(np.ascontiguousarray(frame)) for frame in video]
        first.save(inner / f"{number}.png", save_all=True, append_images=rest)
    return place


def test_a_folder_of_clips_becomes_a_model_and_a_table(tmp_path: Path, folder: Path, encoder: Path) -> None:
    output = tmp_path / "actions"
    said = run("tune", "action", folder, "--model", encoder, "-o", output, *BRIEF).stdout
    assert "accuracy on 2 classes that were not trained on, 10 episodes" in said
    for row in ("class names alone", "1 clip a class", "5 clips a class", "5 clips a class and names fused"):
        assert row in said
    assert [each.name for each in tmp_path.iterdir()] == ["actions"]  # the run folder is gone
    made = ActionRecogniser.load(output, DualEncoder.load(encoder))
    assert f"{made.trainable:,} trained parameters" in said
    assert "expected a new folder name" in refusal("tune", "action", folder, "--model", encoder, "-o", output, *BRIEF)


def test_what_is_wrong_is_one_line(tmp_path: Path, folder: Path, encoder: Path) -> None:
    def wrong(*arguments: object, data: Path = folder) -> str:
        options = dict(zip((*BRIEF, *arguments)[::2], (*BRIEF, *arguments)[1::2], strict=True))
        given = [each for pair in options.items() for each in pair]
        return refusal("tune", "action", data, "--model", encoder, "-o", tmp_path / "out", *given)

    assert "expected a video of at least 4 frames, found 3" in wrong("--frames", 4)
    assert "expected 3 or more classes, found 2" in wrong("--way", 3)
    assert "nowhere: expected a file or folder" in wrong(data=tmp_path / "nowhere")
    assert "3 or more classes to part, found 2" in wrong(data=folder / "train")
    assert not list(tmp_path.iterdir())
