"""Clips of a folder: folders of frames and animated pictures, splits that share no class, and what is wrong as one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.clips import Clips, load_clips, load_splits, split_classes
from photopic.data.episodes import draw_episodes


def frames(count: int, size: tuple[int, int] = (6, 4)) -> list[Image.Image]:
    """Frame number n is a red of 10 n."""
    return [Image.new("RGB", size, (10 * number, 0, 0)) for number in range(count)]


def save_folder(path: Path, count: int) -> None:
    path.mkdir(parents=True)
    for number, frame in enumerate(frames(count)):
        frame.save(path / f"{number}.png")


def save_animation(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = frames(count)
    first.save(path, save_all=True, append_images=rest, duration=50, lossless=True)


def folder_of(path: Path, classes: int, clips: int = 2) -> Path:
    for label in range(classes):
        for clip in range(clips):
            save_folder(path / f"action {label}" / str(clip), 4)
    return path


@pytest.mark.parametrize("suffix", ["", ".gif", ".webp", ".png"])
def test_the_middle_frame_of_each_part_is_taken(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / "bear running" / f"one{suffix}"
    (save_animation if suffix else save_folder)(place, 12)
    clips = load_clips(tmp_path, 4)
    assert clips.names == ("bear running",) and clips.videos[0].shape == (4, 4, 6, 3)
    assert clips.videos[0][:, 0, 0, 0].tolist() == [10, 40, 70, 100]  # frames 1, 4, 7, 10; not 10 before 2


def test_large_frames_are_made_smaller(tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    Image.new("RGB", (1000, 500)).save(tmp_path / "a" / "1" / "0.png")
    assert load_clips(tmp_path, 1).videos[0].shape == (1, 160, 320, 3)


def refusal(path: Path, count: int = 4) -> str:
    with pytest.raises(DataError) as caught:
        clips = load_clips(path, count)
        list(clips.videos)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    assert "found nothing" in refusal(tmp_path / "nowhere")
    assert "one folder of clips a class" in refusal(tmp_path)
    (tmp_path / "a").mkdir()
    assert "found none; add one" in refusal(tmp_path)
    save_folder(tmp_path / "a" / "1", 3)
    assert "at least 4 frames, found 3; ask for fewer frames or remove it" in refusal(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "0.png")
    assert "at least 2 frames, found 1" in refusal(tmp_path, 2)
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    assert "found an unknown format" in refusal(tmp_path, 2)
    (tmp_path / "a" / "0.png").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "1" / "1.png")
    assert "expected frames of one size" in refusal(tmp_path, 3)


def test_classes_are_parted_and_never_mixed(tmp_path: Path) -> None:
    whole = load_clips(folder_of(tmp_path, 10), 4)
    splits = split_classes(whole, seed=3)
    assert [len(part.names) for part in splits.values()] == [6, 2, 2]
    assert sorted(name for part in splits.values() for name in part.names) == sorted(whole.names)
    assert split_classes(whole, seed=3)["test"].names == splits["test"].names
    assert splits["test"].videos[1].shape == (4, 4, 6, 3)
    with pytest.raises(DataError, match="3 or more classes to part, found 2"):
        split_classes(whole.classes([0, 1]))


def test_a_folder_may_say_which_class_is_which(tmp_path: Path) -> None:
    for split, label in (("train", "a"), ("validation", "b"), ("test", "c")):
        save_folder(tmp_path / split / label / "1", 4)
    assert {split: clips.names for split, clips in load_splits(tmp_path, 4).items()} == {
        "train": ("a",),
        "validation": ("b",),
        "test": ("c",),
    }
    save_folder(tmp_path / "test" / "b" / "1", 4)
    with pytest.raises(DataError, match="class 'b': expected in one split, found in validation and test"):
        load_splits(tmp_path, 4)


def test_clips_need_a_clip_a_class() -> None:
    videos = np.zeros((2, 3, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="class 'b' has no clip"):
        Clips(videos, np.array([0, 0]), ("a", "b"))
    with pytest.raises(DataError, match="one label a clip"):
        Clips(videos, np.array([0]), ("a",))


def test_episodes_never_judge_by_what_they_learn_from() -> None:
    labels = np.repeat(np.arange(7), 4)
    drawn = draw_episodes(labels, "abcdefg", episodes=20, way=5, shots=2, queries=2, seed=1)
    for classes, support, queries in zip(*drawn, strict=True):
        assert len(set(classes.tolist())) == 5
        assert not set(support.flatten().tolist()) & set(queries.flatten().tolist())
        assert (labels[support] == classes[:, None]).all() and (labels[queries] == classes[:, None]).all()
    fewer = draw_episodes(labels, "abcdefg", episodes=3, way=5, shots=2, queries=2, seed=1)
    assert (fewer.support == drawn.support[:3]).all()


def test_episodes_may_stay_within_a_group() -> None:
    labels, groups = np.repeat(np.arange(9), 2), [0, 1, 0, 1, 0, 1, 0, 1, 2]

    def shared(within: float) -> list[bool]:
        drawn = draw_episodes(labels, "abcdefghi", episodes=40, way=3, groups=groups, within=within)
        return [len({groups[each] for each in classes}) == 1 for classes in drawn.classes.tolist()]

    assert all(shared(1.0)) and 10 < sum(shared(0.5)) < 35 and sum(shared(0.0)) < 15
    for wrong in ({"groups": None}, {"groups": range(9)}):
        with pytest.raises(DataError, match="expected a group of 3 or more classes, found none"):
            draw_episodes(labels, "abcdefghi", episodes=1, way=3, within=0.5, **wrong)  # type: ignore[arg-type]


def test_episodes_say_what_is_missing() -> None:
    labels = np.repeat(np.arange(5), 2)
    with pytest.raises(DataError, match=r"class 'a': expected 6 or more \(5 to learn from, 1 to judge by\), found 2"):
        draw_episodes(labels, "abcde", episodes=1, shots=5)
    with pytest.raises(DataError, match="expected 6 or more classes, found 5"):
        draw_episodes(labels, "abcde", episodes=1, way=6)
