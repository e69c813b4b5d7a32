"""A folder of classes: sub-folders are classes, pictures are read as they are asked for, and what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.class_folder import load_classes
from photopic.data.folder import PassedOverWarning


def save(path: Path, size: tuple[int, int] = (6, 4), colour: object = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)  # type: ignore[arg-type]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_classes(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sub_folders_are_classes_and_pictures_keep_their_size(tmp_path: Path) -> None:
    save(tmp_path / "mug" / "b.png", (6, 4), "blue")
    save(tmp_path / "Brown-Bear" / "a.jpg", (3, 9))
    save(tmp_path / "mug" / "a.png", (5, 5))
    (tmp_path / "notes.md").write_text("hello")
    with pytest.warns(PassedOverWarning, match=r"passed over notes\.md$"):
        found = load_classes(tmp_path)
    assert found.classes == ("Brown-Bear", "mug", "mug") and len(found) == 3
    assert [each.shape for each in found[:3]] == [(9, 3, 3), (5, 5, 3), (4, 6, 3)]
    assert found[2][0, 0].tolist() == [0, 0, 255]
    assert [each.shape for each in found[np.array([2, 0])]] == [(4, 6, 3), (9, 3, 3)]
    assert found.labels(["mug", "cup", "brown bear"]) == [2, 0, 0]


def test_pictures_alone_have_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    found = load_classes(tmp_path)
    assert found.classes is None and found.labels(["mug"]) is None


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    assert "found nothing there" in refusal(tmp_path / "nowhere")
    assert refusal(tmp_path).endswith("found an empty folder; put pictures in it")
    save(tmp_path / "mug" / "a.png")
    with pytest.raises(DataError, match=r"found mug \(nearest: cup\); rename it"):
        load_classes(tmp_path).labels(["cup", "brown bear"])
    (tmp_path / "bear").mkdir()
    assert "bear: expected at least one image, found an empty folder" in refusal(tmp_path)
    (tmp_path / "bear" / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png: expected a readable image"):
        load_classes(tmp_path)[0]
    save(tmp_path / "loose.png")
    assert "found both bear and loose.png" in refusal(tmp_path)
