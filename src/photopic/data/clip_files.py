"""Clips as files: a folder of frames in the order of their names, or one animated picture, read when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence

from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.data.folder import entries, is_picture, picture_files, strangers, warn_passed_over
from photopic.data.picture_file import identify, read_picture
from photopic.data.pixels import as_rgb

LONGEST = 320  # pixels of a frame's longer side that are kept; larger frames are made smaller when they are read
MAX_FRAMES = 20_000


class ClipFiles(Sequence[Any]):
    """Clips that are read when they are asked for."""

    def __init__(self, files: tuple[Path, ...], frames: int):
        self.files, self.frames = files, frames

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        return read_clip(self.files[index], self.frames)


def class_folders(folder: Path) -> list[Path]:
    """The sub-folders, in the order of their names."""
    return _in_order([entry for entry in entries(folder) if entry.is_dir()])


def clips_in(folder: Path) -> list[Path]:
    """Sub-folders and animated pictures; still pictures beside each other are one clip too few folders deep."""
    listed = entries(folder)
    found = [entry for entry in listed if entry.is_dir() or is_picture(entry)]
    if not found:
        raise DataError(f"{folder}: expected clips (folders of frames, animated GIF, WebP or PNG), found none; add one")
    warn_passed_over(folder, strangers(entry for entry in listed if entry not in found))
    return _in_order(found)


def length_of(clip: Path) -> int:
    """Number of frames, without reading them."""
    if clip.is_dir():
        return len(picture_files(clip))
    with _opened(clip) as image:
        return int(getattr(image, "n_frames", 1))


def read_clip(clip: Path, frames: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Frames at equal distances, made smaller where they are larger than ``LONGEST``."""
    if clip.is_dir():
        files = _in_order(picture_files(clip))
        pictures = [_smaller(read_picture(files[place])) for place in _places(len(files), frames)]
    else:
        with _opened(clip) as image:
            wanted = set(_places(int(getattr(image, "n_frames", 1)), frames))  # the others are passed, not kept
            try:
                shown = [as_rgb(each, clip) for n, each in enumerate(ImageSequence.Iterator(image)) if n in wanted]
            except DataError:
                raise
            except Exception as error:  # Pillow's readers raise a dozen types on broken files
                raise DataError(f"{clip}: expected an animated picture, found a damaged file ({error})") from error
        pictures = [_smaller(each) for each in shown]
    sizes = sorted({each.size for each in pictures})
    if len(sizes) > 1:
        raise DataError(f"{clip}: expected frames of one size, found {sizes[0]} and {sizes[1]}; make them equal")
    return np.stack([np.asarray(each) for each in pictures])  # (frames, h, w, 3)


def _opened(clip: Path) -> Image.Image:
    image = identify(read_file(clip, DataError), clip)
    count = int(getattr(image, "n_frames", 1))
    if count > MAX_FRAMES:
        raise DataError(
            f"{clip}: {count} frames of {image.width} x {image.height} are too many; cut it or make it smaller"
        )
    return image


def _places(count: int, frames: int) -> list[int]:
    """The middle frame of each of ``frames`` equal parts."""
    return [int((part + 0.5) * count / frames) for part in range(frames)]


def _smaller(picture: Image.Image) -> Image.Image:
    picture.thumbnail((LONGEST, LONGEST))
    return picture


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """By name, with numbers as numbers: 2.png before 10.png."""

    def key(path: Path) -> list[str | int]:
        return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", path.name))]

    return sorted(paths, key=key)
