"""Pictures of a command that needs no names: a folder, or scenes of the emoji world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photopic.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

SCENES = "emoji-scenes"
HELP = f"A folder of pictures, or {SCENES}: scenes of the emoji world, {SCENES}:5000 for so many."


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
