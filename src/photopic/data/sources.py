"""Data named by a word of the user: pictures without names, or few labelled pictures, from a folder or the emoji world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from photopic.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from photopic.data.few_shot import LabelledImages

SCENES = "emoji-scenes"
HELP = f"A folder of pictures, or {SCENES}: scenes of the emoji world, {SCENES}:5000 for so many."
TASK = "emoji:"  # before the name of a task of the emoji world
DATA_HELP = (
    "Folder with one sub-folder of pictures a class, named as the class; or emoji:held-out-style, emoji:held-out-concepts, "
    "emoji:groups to try it without pictures."
)


def read_pictures(data: str, size: int, *, scenes: int = 10_000) -> Tensor:
    """uint8 (n, size, size, 3).

    Args:
        data: A folder, or ``emoji-scenes`` with or without a number.
        size: Side in pixels.
        scenes: How many where no number is given.

    Raises:
        DataError: If there is no picture to read, or the number is none.
    """
    import torch

    name, _, count = data.partition(":")
    if name == SCENES:
        import numpy as np

        from photopic.data import renderings
        from photopic.data.scenes import SceneOptions, sample_scene

        if count and (not count.isdigit() or int(count) < 1):
            raise DataError(f"{data}: expected {SCENES} or {SCENES}:5000, found {count!r} for the number of scenes")
        options = SceneOptions(concepts=renderings.classes(), objects=(0.7, 0.3, 0.0, 0.0), size=size)
        drawn = [sample_scene(options, (66, index)).image for index in range(int(count or scenes))]
        return torch.from_numpy(np.stack(drawn))
    from photopic.data.folder import load_folder

    found = load_folder(data, size).images
    return (found * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def read_task(data: str, shots: int, seed: int, classes: int | None = None) -> tuple[LabelledImages, LabelledImages]:
    """What to learn from and what to measure on.

    Args:
        data: A folder, or a task of the emoji world after ``emoji:``.
        shots: Pictures of each class to learn from.
        seed: Of the draw, and of an emoji task.
        classes: Of an emoji task.

    Returns:
        ``shots`` pictures a class; the pictures of a folder that were not drawn, or those an emoji task tests on.

    Raises:
        DataError: If there is no such folder or task, one class only, or a class with fewer pictures.
    """
    from photopic.data.emoji_tasks import emoji_task
    from photopic.data.few_shot import labelled_folder

    if data.startswith(TASK):
        train, test = emoji_task(data.removeprefix(TASK), classes=classes, train_per_class=max(16, shots), seed=seed)
        return train.shots(shots, seed), test
    if classes is not None:
        raise DataError("--classes: is for emoji tasks; a folder has the classes it has, so leave it out")
    return labelled_folder(Path(data)).draw(shots, seed)
