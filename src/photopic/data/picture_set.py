"""Pictures to train a generative model on or to probe it with, read at the size that the model wants.

A folder of pictures, or ``emoji-scenes``: scenes of the emoji world, ``emoji-scenes:5000`` for so many.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data import renderings
from photopic.data.folder import load_folder, picture_files
from photopic.data.scenes import SceneOptions, sample_scene

SCENES = "emoji-scenes"
SEED = 66  # of the scenes, the same for everybody


@dataclass(frozen=True)
class PictureSet:
    """Pictures that nobody has read yet.

    Attributes:
        word: A folder, or ``emoji-scenes`` with or without a number.

    Example:
        >>> PictureSet("emoji-scenes:2").read(16).shape
        torch.Size([2, 16, 16, 3])
    """

    word: str

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the files, or of the name of the scenes, which follow from it."""
        hasher = hashlib.sha256(b"" if self._is_folder else self.word.encode())
        for path in picture_files(Path(self.word)) if self._is_folder else ():
            hasher.update(path.read_bytes())
        return hasher.hexdigest()

    @property
    def _is_folder(self) -> bool:
        return self.word.partition(":")[0] != SCENES

    def read(self, size: int, *, scenes: int = 10_000) -> UInt8[Tensor, "n size size 3"]:
        """The pictures at a size.

        Args:
            size: Side in pixels.
            scenes: How many where no number is given.

        Raises:
            DataError: If there is no picture to read, or the number is none.
        """
        if self._is_folder:
            found = load_folder(self.word, size).images  # (n, 3, size, size), -1 to 1
            return (found * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
        count = self.word.partition(":")[2]
        if count and (not count.isdigit() or int(count) < 1):
            raise DataError(
                f"{self.word}: expected {SCENES} or {SCENES}:5000, found {count!r} for the number of scenes"
            )
        options = SceneOptions(concepts=renderings.classes(), objects=(0.7, 0.3, 0.0, 0.0), size=size)
        drawn = [sample_scene(options, (SEED, index)).image for index in range(int(count or scenes))]
        return torch.from_numpy(np.stack(drawn))
