"""What protections and attacks of one's own pictures share: steps inside a ball of whole levels, and pictures in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import what_is_there, write_atomically
from photopic.data.folder import picture_files
from photopic.data.picture_file import read_picture
from photopic.data.pictures import png_bytes

Levels = Float[Tensor, "n 3 h w"]  # pictures on the scale of 8 bits, 0 to 255
Slope = Callable[[Levels, int], Levels]  # of what is to rise, at the pictures, in a step


@dataclass(frozen=True, kw_only=True)
class BallConfig(Config):
    """How far a picture may be changed, and in how many steps."""

    epsilon: Annotated[int, Ge(0), Le(255)] = 16  # largest change of a channel of a pixel, in levels of 255
    steps: Annotated[int, Ge(1)] = 20  # steps of projected gradient ascent
    step_size: Annotated[float, Gt(0)] = 2.0  # change of each channel in a step, in levels of 255
    seed: Annotated[int, Ge(0)] = 0  # seed of the start and of all noise


def ascended(
    pictures: UInt8[np.ndarray, "n h w 3"],
    slope: Slope,
    config: BallConfig,
    generators: Sequence[torch.Generator],
    where: Float[Tensor, "n 1 h w"] | float = 1.0,
    stage: str = "protecting",
) -> Steps[UInt8[np.ndarray, "n h w 3"]]:
    """Projected gradient ascent by signs (Madry et al., arXiv 1706.06083) from a random point of the ball.

    The ball is of whole levels, so that the nearest 8-bit picture lies in it too.

    Args:
        pictures: What to change.
        slope: The gradient of what is to rise.
        config: The ball and the steps.
        generators: One a picture, of its start.
        where: 1 where pixels may change, 0 elsewhere.
        stage: What the events are called.

    Returns:
        The changed pictures, each channel within ``epsilon`` levels of its own.

    Example:
        >>> from photopic.core.events import finished
        >>> grey = np.full((1, 2, 2, 3), 100, np.uint8)
        >>> found = finished(ascended(grey, lambda x, step: x, BallConfig(epsilon=3), [torch.Generator()]))
        >>> int(found.min()), int(found.max())
        (103, 103)
    """
    clean: Levels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()  # (n, 3, h, w)
    low, high = (clean - config.epsilon).clamp(min=0), (clean + config.epsilon).clamp(max=255)
    draws = torch.stack([torch.rand(clean.shape[1:], generator=each) for each in generators])
    moved = (clean + (2 * draws - 1) * config.epsilon * where).clamp(low, high)
    for step in range(config.steps):
        moved = (moved + config.step_size * slope(moved, step).sign() * where).clamp(low, high)
        yield Event(stage, step + 1, config.steps)
    return moved.round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def seeded(seed: int, numbers: Sequence[int]) -> list[torch.Generator]:
    """One generator a picture, by its number: what is found does not depend on the batch."""
    return [torch.Generator().manual_seed(seed * 1_000_003 + number) for number in numbers]


def as_model_reads(levels: Levels, size: int) -> Float[Tensor, "n 3 size size"]:
    """Central squares at a model's size in -1 to 1, as whoever imitates or edits a picture prepares it; gradients flow."""
    side = min(levels.shape[-2:])
    top, left = ((length - side) // 2 for length in levels.shape[-2:])
    square = levels[..., top : top + side, left : left + side]
    if side != size:
        square = F.interpolate(square, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return square / 127.5 - 1


def random_change(
    pictures: UInt8[np.ndarray, "n h w 3"], epsilon: int, generators: Sequence[torch.Generator]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Every channel moved by ``epsilon`` levels up or down at random: a change of the same size that aims at nothing."""
    shape = pictures.shape[1:]
    signs = torch.stack([torch.randint(0, 2, shape, generator=each) for each in generators]).numpy() * 2 - 1
    return (pictures.astype(int) + epsilon * signs).clip(0, 255).astype(np.uint8)


def signal_to_noise(clean: UInt8[np.ndarray, "h w 3"], changed: UInt8[np.ndarray, "h w 3"]) -> float:
    """Peak signal-to-noise ratio in decibels; infinite for equal pictures."""
    error = float(((clean.astype(float) - changed) ** 2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def read_pictures(word: str) -> dict[Path, np.ndarray]:
    """One picture or those of a folder, each uint8 (h, w, 3) at its own size.

    Raises:
        DataError: If there is none, or one cannot be read.
    """
    files = picture_files(Path(word)) if what_is_there(Path(word)) == "a folder" else [Path(word)]
    return {file: np.array(read_picture(file)) for file in files}


def places_for(files: Sequence[Path], output: str, *, overwrite: bool) -> list[Path]:
    """Where each picture is written: ``output`` itself where it ends in .png, else a PNG of the same name in that folder.

    Raises:
        DataError: If several pictures have one place, or a file is there and ``overwrite`` is false.
    """
    folder = Path(output)
    if folder.suffix.lower() == ".png":
        if len(files) > 1:
            raise DataError(
                f"{output}: expected a folder for {len(files)} pictures, found the name of one; name a folder"
            )
        places = [folder]
    else:
        places = [folder / f"{file.stem}.png" for file in files]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise DataError(f"{files[number]}: another picture is called {place.stem} too; rename one of them")
        if place.exists() and not overwrite:
            raise DataError(
                f"{place}: expected a new name, found something there; choose another --output or add --overwrite"
            )
    return places


def write_png(picture: UInt8[np.ndarray, "h w 3"], place: Path) -> None:
    """Write a picture without loss, whole or not at all; its folder is made if it is missing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, png_bytes(picture))


def batches_of_one_size(pictures: Sequence[np.ndarray], batch: int) -> Iterator[list[int]]:
    """Numbers of pictures that can be stacked, a batch at a time."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(number)
    for numbers in sizes.values():
        for start in range(0, len(numbers), batch):
            yield numbers[start : start + batch]
