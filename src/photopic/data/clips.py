"""Short videos with classes: a folder of the user's own clips, and its classes parted into training, validation and test.

clips/dog running/1/001.png ...   clips/dog running/2.gif   clips/cat jumping/1.webp   ...

A clip is a folder of frames in the order of their names, or one animated GIF, WebP or PNG. Frames are taken at equal
distances, one from the middle of each part, as TSN samples them at test time (Wang et al., arXiv 1608.00859).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageSequence

from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.data.folder import entries, is_picture, picture_files, strangers, warn_passed_over
from photopic.data.picture_file import identify, read_picture
from photopic.data.pixels import as_rgb

SPLITS = ("train", "validation", "test")
SHARES = (0.6, 0.2, 0.2)  # of the classes, where a folder says nothing
LONGEST = 320  # pixels of a frame's longer side that are kept; larger frames are made smaller when they are read
MAX_FRAMES = 20_000


Videos = Sequence[Any] | UInt8[np.ndarray, "n t h w 3"]
"""Videos: one uint8 array of RGB, or a sequence of uint8 (t, h, w, 3) arrays."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Videos of equally many frames, each with a class.

    Attributes:
        videos: One uint8 (frames, h, w, 3) a clip; an array of all of them, or a sequence that reads each when asked.
        labels: The class of each clip, an index of ``names``.
        names: What the classes are called.
        captions: One sentence a clip, where there is any.
        groups: A number a class; classes of one group are hard to tell apart. None where nobody said so.

    Example:
        >>> Clips(np.zeros((2, 8, 4, 4, 3), np.uint8), np.array([0, 1]), ("dog running", "cat jumping")).frames
        8
    """

    videos: Videos
    labels: Int64[np.ndarray, " clips"]
    names: tuple[str, ...]
    captions: tuple[str, ...] | None = None
    groups: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.videos) == len(self.labels) > 0:
            raise DataError(
                f"clips: expected one label a clip, found {len(self.videos)} clips, {len(self.labels)} labels"
            )
        missing = sorted(set(range(len(self.names))) - set(self.labels.tolist()))
        if missing:
            raise DataError(f"clips: class {self.names[missing[0]]!r} has no clip; add one or leave the class out")
        if int(self.labels.max()) >= len(self.names) or len(set(self.names)) < len(self.names):
            raise DataError(f"clips: expected a name of its own for every class, found {len(set(self.names))} names")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frames(self) -> int:
        """Frames of each clip."""
        return len(self.videos[0])

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of every frame, the classes and their names; clips in files are read for it."""
        hasher = hashlib.sha256(json.dumps([self.names, self.labels.tolist(), self.groups]).encode())
        for video in self.videos:
            array = np.asarray(video)  # (frames, h, w, 3)
            hasher.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def classes(self, chosen: Sequence[int]) -> Clips:
        """The clips of some classes alone, relabelled from 0 in the order given."""
        number = {old: new for new, old in enumerate(chosen)}
        kept = [place for place, label in enumerate(self.labels.tolist()) if label in number]
        videos = self.videos[kept] if isinstance(self.videos, np.ndarray) else _Chosen(self.videos, kept)
        labels = np.array([number[int(self.labels[place])] for place in kept], np.int64)
        captions = None if self.captions is None else tuple(self.captions[place] for place in kept)
        groups = None if self.groups is None else tuple(self.groups[old] for old in chosen)
        return Clips(videos, labels, tuple(self.names[old] for old in chosen), captions, groups)


@dataclass(frozen=True, eq=False)
class ActionTask:
    """Clips, or their features, of classes that no two parts share.

    Attributes:
        training: What is learnt from.
        validation: What says which state names new classes best.
        test: What the result is measured on, or None to measure nothing.

    Raises:
        DataError: If two parts share a class.
    """

    training: Any
    validation: Any
    test: Any = None

    def __post_init__(self) -> None:
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        check_apart({name: part.names for name, part in parts.items() if part is not None})

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of all parts."""
        parts = [part.digest for part in (self.training, self.validation, self.test) if part is not None]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def load_clips(path: str | Path, frames: int = 8) -> Clips:
    """List the clips of a folder of class folders; each is read when it is asked for.

    Args:
        path: The folder.
        frames: Frames taken of each clip.

    Raises:
        DataError: If there is no class, a class has no clip, a clip is shorter than ``frames`` or cannot be read.

    Example:
        >>> load_clips("clips").names  # doctest: +SKIP
        ('cat jumping', 'dog running')
    """
    folder = Path(path)
    inner = _folders(folder)
    if not inner:
        raise DataError(
            f"{folder}: expected one folder of clips a class, found none; put the clips of a class into a folder of its name"
        )
    found = [(clip, number) for number, each in enumerate(inner) for clip in _clips(each)]
    for clip, _ in found:
        count = _length(clip)
        if count < frames:
            raise DataError(
                f"{clip}: expected a video of at least {frames} frames, found {count}; ask for fewer frames or remove it"
            )
    videos = _Files(tuple(clip for clip, _ in found), frames)
    return Clips(videos, np.array([number for _, number in found], np.int64), tuple(each.name for each in inner))


def load_splits(path: str | Path, frames: int = 8, *, seed: int = 0) -> dict[str, Clips]:
    """The clips of a folder as ``train``, ``validation`` and ``test``, which share no class.

    Args:
        path: A folder with the sub-folders ``train``, ``validation`` and ``test`` of class folders, else of class folders.
        frames: Frames taken of each clip.
        seed: Decides which classes are which where the folder does not.

    Raises:
        DataError: As ``load_clips``; if a class is in two splits, or there are fewer than three classes.

    Example:
        >>> load_splits("clips")["test"].names  # doctest: +SKIP
        ('cat jumping',)
    """
    folder = Path(path)
    if sorted(each.name for each in _folders(folder)) == sorted(SPLITS):
        found = {split: load_clips(folder / split, frames) for split in SPLITS}
        check_apart({split: clips.names for split, clips in found.items()})
        return found
    return split_classes(load_clips(folder, frames), seed=seed)


def split_classes(clips: Clips, shares: tuple[float, float, float] = SHARES, *, seed: int = 0) -> dict[str, Clips]:
    """Part classes, never the clips of one class, into ``train``, ``validation`` and ``test``.

    Args:
        clips: At least three classes.
        shares: Of the classes; each split gets at least one.
        seed: Decides which.

    Raises:
        DataError: If there are fewer than three classes.

    Example:
        >>> {split: part.names for split, part in split_classes(clips).items()}  # doctest: +SKIP
        {'train': ('dog running',), 'validation': ('cat jumping',), 'test': ('cow eating',)}
    """
    count = len(clips.names)
    if count < 3:
        raise DataError(f"clips: expected 3 or more classes to part, found {count}; few-shot tests need unseen classes")
    order = np.random.default_rng(seed).permutation(count)
    held = [max(1, round(share * count)) for share in shares[1:]]
    ends = np.cumsum([count - sum(held), *held])
    parts = np.split(order, ends[:-1])
    return {split: clips.classes(sorted(map(int, part))) for split, part in zip(SPLITS, parts, strict=True)}


def check_apart(splits: Mapping[str, Sequence[str]]) -> None:
    """Refuse splits that share a class.

    Args:
        splits: The class names of each.

    Raises:
        DataError: Names the class and both splits.

    Example:
        >>> check_apart({"train": ["bear running"], "test": ["cat jumping"]})
    """
    owner: dict[str, str] = {}
    for split, names in splits.items():
        for name in names:
            if name in owner:
                raise DataError(
                    f"class {name!r}: expected in one split, found in {owner[name]} and {split}; remove one"
                )
            owner[name] = split


class _Files(Sequence[Any]):
    """Clips that are read when they are asked for."""

    def __init__(self, files: tuple[Path, ...], frames: int):
        self.files, self.frames = files, frames

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        return _read_clip(self.files[index], self.frames)


class _Chosen(Sequence[Any]):
    """Some clips of others."""

    def __init__(self, videos: Sequence[Any], places: Sequence[int]):
        self.videos, self.places = videos, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        return self.videos[self.places[index]]


def _folders(folder: Path) -> list[Path]:
    return _in_order([entry for entry in entries(folder) if entry.is_dir()])


def _clips(folder: Path) -> list[Path]:
    """Sub-folders and animated pictures; still pictures beside each other are one clip too few folders deep."""
    listed = entries(folder)
    found = [entry for entry in listed if entry.is_dir() or is_picture(entry)]
    if not found:
        raise DataError(f"{folder}: expected clips (folders of frames, animated GIF, WebP or PNG), found none; add one")
    warn_passed_over(folder, strangers(entry for entry in listed if entry not in found))
    return _in_order(found)


def _length(clip: Path) -> int:
    if clip.is_dir():
        return len(picture_files(clip))
    with _opened(clip) as image:
        return int(getattr(image, "n_frames", 1))


def _read_clip(clip: Path, frames: int) -> UInt8[np.ndarray, "t h w 3"]:
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
