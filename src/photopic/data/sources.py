"""What a word of the command line becomes, by the type that a method asks for: folders, tasks of the emoji world, files.

A method names a data type; the entry of that type here says how to read it, which options that takes, and what its help says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from annotated_types import Ge

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.data.class_folder import ClassFolder, load_classes
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, labelled_folder
from photopic.data.layout import Layout
from photopic.data.layout_file import read_layout

T = TypeVar("T")
SCENES = "emoji-scenes"
HELP = f"A folder of pictures, or {SCENES}: scenes of the emoji world, {SCENES}:5000 for so many."
TASK = "emoji:"  # before the name of a task of the emoji world


@dataclass(frozen=True)
class Source(Generic[T]):
    """How to read one type of data.

    Attributes:
        help: What the word may be, for the help of every command that takes one.
        read: From the word, the options and the model that the data is for, or None.
        options: The config whose fields are further options of the command; None for none.
    """

    help: str
    read: Callable[[str, Any, Any], T]
    options: type[Config] | None = None


def read_pictures(data: str, size: int, *, scenes: int = 10_000) -> Any:
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


@dataclass(frozen=True, kw_only=True)
class FewShotOptions(Config):
    """How a task is drawn from labelled pictures."""

    shots: Annotated[int, Ge(1)] = 16  # pictures of each class to learn from; the others are measured on
    classes: Annotated[int | None, Ge(2)] = None  # classes of an emoji task; as the task has it by default
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


def read_few_shot(word: str, options: FewShotOptions, model: Any = None) -> FewShotTask:
    """What to learn from and what to measure on.

    Args:
        word: A folder, or a task of the emoji world after ``emoji:``.
        options: How to draw.
        model: Not asked; pictures keep their sizes.

    Raises:
        DataError: If there is no such folder or task, one class only, or a class with fewer pictures.
    """
    shots, seed = options.shots, options.seed
    if word.startswith(TASK):
        kept = max(16, shots)  # so that the test pictures are the same for all numbers of shots up to 16
        train, test = emoji_task(word.removeprefix(TASK), classes=options.classes, train_per_class=kept, seed=seed)
        return FewShotTask(train.shots(shots, seed), test)
    if options.classes is not None:
        raise DataError("--classes: is for emoji tasks; a folder has the classes it has, so leave it out")
    return FewShotTask(*labelled_folder(Path(word)).draw(shots, seed))


SOURCES: dict[type, Source[Any]] = {
    FewShotTask: Source(
        "Folder with one sub-folder of pictures a class, named as the class; or emoji:held-out-style, "
        "emoji:held-out-concepts, emoji:groups to try it without pictures.",
        read_few_shot,
        FewShotOptions,
    ),
    ClassFolder: Source(
        "Folder of pictures; for what needs true classes, one sub-folder a class, named as the model names the class.",
        lambda word, options, model: load_classes(word),
    ),
    Layout: Source(
        "JSON with a box or a painted mask for each subject; see docs/methods/layout_guidance.md.",
        lambda word, options, model: read_layout(word),
    ),
}


DATA_HELP = SOURCES[FewShotTask].help


def read_task(data: str, shots: int, seed: int, classes: int | None = None) -> tuple[Any, Any]:
    """The two halves of ``read_few_shot``."""
    task = read_few_shot(data, FewShotOptions(shots=shots, seed=seed, classes=classes))
    return task.train, task.test
