"""Short videos with classes: a folder of the user's own clips, and its classes parted into training, validation and test.

clips/dog running/1/001.png ...   clips/dog running/2.gif   clips/cat jumping/1.webp   ...

A clip is a folder of frames in the order of their names, or one animated GIF, WebP or PNG. Frames are taken at equal
distances, one from the middle of each part, as TSN samples them at test time (Wang et al., arXiv 1608.00859).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from photopic.core.errors import DataError
from photopic.data.clip_files import ClipFiles, class_folders, clips_in, length_of

SPLITS = ("train", "validation", "test")
SHARES = (0.6, 0.2, 0.2)  # of the classes, where a folder says nothing


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
    inner = class_folders(folder)
    if not inner:
        raise DataError(
            f"{folder}: expected one folder of clips a class, found none; put the clips of a class into a folder of its name"
        )
    found = [(clip, number) for number, each in enumerate(inner) for clip in clips_in(each)]
    for clip, _ in found:
        count = length_of(clip)
        if count < frames:
            raise DataError(
                f"{clip}: expected a video of at least {frames} frames, found {count}; ask for fewer frames or remove it"
            )
    videos = ClipFiles(tuple(clip for clip, _ in found), frames)
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
    if sorted(each.name for each in class_folders(folder)) == sorted(SPLITS):
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


class _Chosen(Sequence[Any]):
    """Some clips of others."""

    def __init__(self, videos: Sequence[Any], places: Sequence[int]):
        self.videos, self.places = videos, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        return self.videos[self.places[index]]
