"""Pictures with class names for learning from few of them: shots, base and new classes, what is trained on and what is kept apart.

Use it as ``train, rest = labelled_folder("pictures").draw(4, seed=0)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.class_folder import ClassFolder, load_classes
from photopic.data.pixels import as_array

LARGEST_SEED = 2**63


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Pictures, the class of each, and what the classes are called.

    Attributes:
        images: uint8 (n, h, w, 3), or a sequence of PIL images or uint8 (h, w, 3) arrays of any sizes.
        labels: The class of each picture, an index of ``names``, int64 (n,).
        names: Class names, each once.

    Raises:
        DataError: If lengths differ, a label is no index of ``names``, or a name is empty or there twice.

    Example:
        >>> data = LabelledImages(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1]), ("mug", "bear"))
        >>> len(data), data.counts
        (4, (2, 2))
    """

    images: UInt8[np.ndarray, "n h w 3"] | Sequence[Any]
    labels: Int64[np.ndarray, " n"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64).reshape(-1))
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice or not all(self.names):
            raise DataError(f"class names: expected each once and none empty, found {twice[:1] or ['']}; rename it")
        if len(self.images) != len(self.labels):
            raise DataError(f"labels: expected one a picture, {len(self.images)}, found {len(self.labels)}")
        outside = self.labels[(self.labels < 0) | (self.labels >= len(self.names))]
        if len(outside):
            raise DataError(f"labels: expected numbers of the {len(self.names)} classes from 0, found {outside[0]}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> tuple[int, ...]:
        """Pictures of each class."""
        return tuple(np.bincount(self.labels, minlength=len(self.names)).tolist())

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of every picture in its size, with its label, and of the names."""
        hasher = hashlib.sha256("\n".join(self.names).encode())
        hasher.update(self.labels.astype("<i8").tobytes())
        for number in range(len(self)):
            image = self.images[number]
            array = (
                as_array(image) if isinstance(image, Image.Image) else np.asarray(image)
            )  # palettes count as colours
            hasher.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def take(self, positions: Sequence[int] | Int64[np.ndarray, " k"]) -> LabelledImages:
        """Only some pictures, in the order given; the classes stay.

        Args:
            positions: Of the pictures, from 0.

        Example:
            >>> LabelledImages(np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 1, 1]), ("mug", "bear")).take([2, 0]).labels
            array([1, 0])
        """
        index = np.asarray(positions, np.int64)
        return replace(self, images=_picked(self.images, index), labels=self.labels[index])

    def draw(self, count: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
        """Draw pictures of each class without replacement: what was drawn, and the rest.

        The pictures of a seed's 4 shots are among those of its 8.

        Args:
            count: Of each class, at least 1.
            seed: Of the draw.

        Returns:
            ``count`` pictures a class, class by class, and all others in their order.

        Raises:
            DataError: If a class has fewer; the message names it.

        Example:
            >>> data = LabelledImages(np.zeros((5, 8, 8, 3), np.uint8), np.array([0, 1, 1, 0, 1]), ("mug", "bear"))
            >>> [part.counts for part in data.draw(2, seed=0)]
            [(2, 2), (0, 1)]
        """
        if count < 1:
            raise DataError(f"shots: expected 1 or more a class, found {count}")
        _check_seed(seed)
        drawn: list[int] = []
        for label, (name, available) in enumerate(zip(self.names, self.counts, strict=True)):
            if available < count:
                raise DataError(
                    f"class {name}: expected {count} pictures or more to draw {count} shots, found {available}; "
                    "add pictures or lower the shots"
                )
            order = np.random.default_rng((seed, label)).permutation(available)
            drawn += np.flatnonzero(self.labels == label)[order[:count]].tolist()
        return self.take(drawn), self.take(np.setdiff1d(np.arange(len(self)), drawn))

    def shots(self, count: int, seed: int) -> LabelledImages:
        """The first of what ``draw`` gives: exactly ``count`` pictures a class.

        Raises:
            DataError: If a class has fewer; the message names it.

        Example:
            >>> data = LabelledImages(np.zeros((5, 8, 8, 3), np.uint8), np.array([0, 1, 1, 0, 1]), ("mug", "bear"))
            >>> data.shots(1, seed=0).labels
            array([0, 1])
        """
        return self.draw(count, seed)[0]

    def classes(self, indices: Sequence[int]) -> LabelledImages:
        """Only these classes, relabelled from 0 in the order given.

        Args:
            indices: Of ``names``.

        Example:
            >>> data = LabelledImages(np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 1, 2]), ("mug", "bear", "fox"))
            >>> (data.classes([2, 0]).names, data.classes([2, 0]).labels)
            (('fox', 'mug'), array([1, 0]))
        """
        new = np.full(len(self.names), -1)
        new[np.asarray(indices, np.int64)] = np.arange(len(indices))
        kept = np.flatnonzero(new[self.labels] >= 0)
        names = tuple(self.names[index] for index in indices)
        return LabelledImages(_picked(self.images, kept), new[self.labels[kept]], names)


@dataclass(frozen=True, eq=False)
class FewShotTask:
    """What to learn from, and what to measure on.

    Attributes:
        train: The pictures that are learnt from.
        test: Pictures of the same classes that are not, or None to measure nothing.
    """

    train: LabelledImages
    test: LabelledImages | None = None

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of all pictures, their classes and the names."""
        parts = [self.train.digest, "" if self.test is None else self.test.digest]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class ShotPool:
    """What shots are drawn from, and what every method is measured on.

    Attributes:
        train: Pictures to draw shots from.
        test: Other pictures of the same classes.

    Raises:
        DataError: If the two have different classes, or a class has no test picture.
    """

    train: LabelledImages
    test: LabelledImages

    def __post_init__(self) -> None:
        if self.train.names != self.test.names:
            raise DataError(
                f"test pictures: expected the classes of the training pictures ({_some(self.train.names)}), found "
                f"{_some(self.test.names)}"
            )
        for name, count in zip(self.test.names, self.test.counts, strict=True):
            if not count:
                raise DataError(
                    f"class {name}: expected one test picture or more, found none; add some or leave it out"
                )

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of all pictures, their classes and the names."""
        return FewShotTask(self.train, self.test).digest


def labelled_folder(path: str | Path) -> LabelledImages:
    """A folder with one sub-folder of pictures a class, named as the class; pictures are read when asked for.

    Args:
        path: The folder.

    Raises:
        DataError: If it is no folder, has no sub-folders or only one, or one holds no picture.

    Example:
        >>> labelled_folder("pictures").names  # doctest: +SKIP
        ('bear', 'mug')
    """
    found = load_classes(path)
    if found.classes is None:
        raise DataError(f"{path}: expected one sub-folder a class, named as the class, found pictures alone; sort them")
    names = tuple(sorted(set(found.classes)))
    if len(names) < 2:
        raise DataError(f"{path}: expected two classes or more, found only {names[0]}; add a sub-folder of another")
    return LabelledImages(found, np.array([names.index(name) for name in found.classes]), names)


def base_and_new(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The base-to-new protocol: classes sorted by name, the first half (rounded up) to train on, the others kept apart.

    Args:
        names: Class names, at least four, so that there is a choice in both halves.

    Returns:
        Indices of the base classes and of the new ones.

    Raises:
        DataError: If there are fewer than four classes.

    Example:
        >>> base_and_new(["fox", "bear", "mug", "ant", "owl"])
        ((3, 1, 0), (2, 4))
    """
    if len(names) < 4:
        raise DataError(f"base and new classes: expected four classes or more, two for each, found {len(names)}")
    order = sorted(range(len(names)), key=lambda index: names[index])
    half = -(-len(names) // 2)
    return tuple(order[:half]), tuple(order[half:])


def split(data: LabelledImages, test_share: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Divide the pictures of every class: what to train on and what to test on, disjoint.

    Args:
        data: What to divide.
        test_share: Of each class, above 0 and below 1; rounded, but at least one picture on both sides.
        seed: Of the division.

    Raises:
        DataError: If the share is not inside, or a class has fewer than two pictures.

    Example:
        >>> data = LabelledImages(np.zeros((8, 8, 8, 3), np.uint8), np.array([0, 0, 0, 0, 1, 1, 1, 1]), ("mug", "bear"))
        >>> [part.counts for part in split(data, 0.25, seed=0)]
        [(3, 3), (1, 1)]
    """
    if not 0 < test_share < 1:
        raise DataError(f"test_share: expected a share above 0 and below 1, found {test_share}")
    _check_seed(seed)
    test: list[int] = []
    for label, (name, available) in enumerate(zip(data.names, data.counts, strict=True)):
        if available < 2:
            raise DataError(f"class {name}: expected two pictures or more to divide them, found {available}")
        count = min(available - 1, max(1, round(test_share * available)))
        order = np.random.default_rng((seed, label)).permutation(available)
        test += np.flatnonzero(data.labels == label)[order[:count]].tolist()
    return data.take(np.setdiff1d(np.arange(len(data)), test)), data.take(np.sort(test))


def _picked(images: Any, index: Int64[np.ndarray, " k"]) -> Any:
    if isinstance(images, np.ndarray):
        return images[index]
    if isinstance(images, ClassFolder):  # stays unread
        classes = images.classes and tuple(images.classes[each] for each in index)
        return ClassFolder(tuple(images.files[each] for each in index), classes)
    return [images[each] for each in index]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < LARGEST_SEED:
        raise DataError(f"seed: expected a whole number from 0, found {seed}")
