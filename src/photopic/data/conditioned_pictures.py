"""Pictures with their conditions, to train on: a folder, or scenes of the emoji world whose masks and order are exact."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from photopic.core.errors import DataError
from photopic.core.files import what_is_there
from photopic.data import emoji_world
from photopic.data.captions import Caption, is_caption, read_captions
from photopic.data.condition_file import SUFFIX, load_conditions
from photopic.data.conditions import Conditions
from photopic.data.extraction import from_picture, from_scene
from photopic.data.folder import entries, load_picture, picture_files
from photopic.data.scenes import Scene, SceneOptions, sample_scene

SCENES = "emoji-scenes"
SEED = 2302  # of the scenes that are trained on, the same for everybody
COUNT = 6_000  # scenes where no number is given
STYLES = ("noto", "noto", "twemoji", "twemoji", "openmoji")  # a fifth has line art that lies on its edges


@dataclass(frozen=True)
class ConditionedPictures:
    """Pictures that nobody has read yet.

    Attributes:
        word: A picture, a folder, or ``emoji-scenes`` with or without a number.

    Example:
        >>> [name for name, _, _ in ConditionedPictures("emoji-scenes:2").read(32)]
        ['scene-00000', 'scene-00001']
    """

    word: str

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the files, or of the name of the scenes, which follow from it."""
        hasher = hashlib.sha256(b"" if self._is_own else self.word.encode())
        for path, (_, caption) in self._captioned() if self._is_own else ():
            beside = path.with_suffix(SUFFIX)
            for part in (path.read_bytes(), caption, b"" if what_is_there(beside) else beside.read_bytes()):
                hasher.update(len(part).to_bytes(8, "little") + part)
        return hasher.hexdigest()

    def __len__(self) -> int:
        if self._is_own:
            return len(self._files())
        count = self.word.partition(":")[2] or str(COUNT)
        if not count.isdigit() or int(count) < 1:
            raise DataError(
                f"{self.word}: expected {SCENES} or {SCENES}:5000, found {count!r} for the number of scenes"
            )
        return int(count)

    @property
    def _is_own(self) -> bool:
        return self.word.partition(":")[0] != SCENES

    def _files(self) -> list[Path]:
        path = Path(self.word)
        return picture_files(path) if what_is_there(path) == "a folder" else [path]

    def _captioned(self) -> list[tuple[Path, Caption]]:
        files = self._files()
        words = [each for each in entries(files[0].parent) if is_caption(each) and not what_is_there(each)]
        found, _ = read_captions(files, words)
        return [(file, found.get(file, (None, b""))) for file in files]

    def read(self, size: int) -> Iterator[tuple[str, UInt8[np.ndarray, "size size 3"], Conditions]]:
        """Picture by picture its name, itself and what it is taken apart into, embedding and mask left out.

        A text file of the same name holds a picture's caption, and a ``.conditions`` file what is known of it better: its own
        sketch, masks or depth.

        Args:
            size: Side in pixels.

        Raises:
            DataError: If there is no picture, or a file beside one cannot be used.
        """
        if not self._is_own:
            for index in range(len(self)):
                scene = training_scene((SEED, index), size)
                yield f"scene-{index:05d}", scene.image, from_scene(scene, drawn=index % 2 == 0)
            return
        for file, (caption, _) in self._captioned():
            image, beside = load_picture(file, size), file.with_suffix(SUFFIX)
            found = from_picture(image, caption=caption)
            yield file.stem, image, found.joined(load_conditions(beside)) if beside.exists() else found


def training_scene(seed: tuple[int, ...], size: int = 64) -> Scene:
    """A scene of one or two things that the bundled models know."""
    known = tuple(item.name for item in emoji_world.select(split="known"))
    options = SceneOptions(
        concepts=known,
        styles=STYLES,
        objects=(0.5, 0.5, 0.0, 0.0),
        backgrounds=(0.7, 0.15, 0.15),
        tinted=0.04,
        size=size,
    )
    return sample_scene(options, seed)
