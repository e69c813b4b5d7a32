"""Scenes as batches of pixels, and pixels as sheets one can look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photopic.data.scenes import Scene, SceneOptions, sample_scene


def pixels(scenes: Sequence[Scene]) -> Tensor:
    """Scenes as a batch in -1 to 1, (batch, 3, size, size)."""
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 127.5 - 1


def batches(options: SceneOptions, *, batch: int, seed: int, start: int = 0) -> Iterator[list[Scene]]:
    """Endless batches of fresh scenes; batch number k is the same whenever the loop started."""
    step = start
    while True:
        yield [sample_scene(options, (seed, step, item)) for item in range(batch)]
        step += 1


def save_sheet(rows: Sequence[Tensor], path: Path) -> None:
    """Rows of pictures in -1 to 1, each (pictures, 3, height, width), written as one sheet."""
    lines = [torch.cat(list(row.float().cpu()), -1) for row in rows]  # side by side
    sheet = torch.cat(lines, -2).clamp(-1, 1).permute(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((sheet + 1) * 127.5).round().to(torch.uint8).numpy()).save(path)
