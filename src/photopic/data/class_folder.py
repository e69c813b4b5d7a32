"""A folder of pictures for a classifier: one sub-folder a class, named as the class, or pictures alone.

pictures/bear/1.jpg   pictures/bear/2.png   pictures/mug/1.jpg   ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from photopic.core.errors import DataError
from photopic.data.folder import contents, entries, is_picture, strangers, warn_passed_over
from photopic.data.picture_file import read_picture


@dataclass(frozen=True)
class ClassFolder(Sequence[Any]):
    """Pictures in their own sizes, each read when it is asked for, so that a folder of any size fits into memory.

    Attributes:
        files: The pictures, class by class, in the order of their names.
        classes: The sub-folder each is in, or None where pictures are in no sub-folder.

    Example:
        >>> images = load_classes("pictures")  # doctest: +SKIP
        >>> images[0].shape, images[:2][1].shape  # doctest: +SKIP
        ((480, 640, 3), (512, 512, 3))
    """

    files: tuple[Path, ...]
    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            index = range(len(self))[index]
        elif isinstance(index, int | np.integer):
            return np.asarray(read_picture(self.files[index]))
        return [np.asarray(read_picture(self.files[each])) for each in index]

    def digest(self) -> str:
        """Hex sha256 of the bytes of all pictures and of their classes, whatever the folder and its files are called."""
        contents = (hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files)
        return hashlib.sha256(repr((self.classes, *contents)).encode()).hexdigest()

    def labels(self, names: Sequence[str]) -> list[int] | None:
        """The class of each picture as an index of ``names``; None where pictures are in no sub-folder.

        Args:
            names: What a classifier calls its classes. Case, and hyphens or underscores for spaces, do not matter.

        Raises:
            DataError: If a sub-folder is named as no class; the message says which one is nearest.

        Example:
            >>> load_classes("pictures").labels(["bear", "mug"])  # doctest: +SKIP
            [0, 0, 1]
        """
        if self.classes is None:
            return None
        exact = {name: index for index, name in enumerate(names)}  # names that differ in case alone stay apart
        alike = {_plain(name): index for name, index in exact.items()}
        found = {name: exact.get(name, alike.get(_plain(name), -1)) for name in set(self.classes)}
        unknown = sorted(name for name, index in found.items() if index < 0)
        if unknown:
            near = get_close_matches(_plain(unknown[0]), alike, n=1, cutoff=0.0)
            nearest = names[alike[near[0]]] if near else "none"
            raise DataError(
                f"{self.files[0].parents[1]}: expected sub-folders named as the model's {len(names)} classes, found "
                f"{unknown[0]} (nearest: {nearest}){f' and {len(unknown) - 1} others' if len(unknown) > 1 else ''}; rename it"
            )
        return [found[name] for name in self.classes]


def load_classes(path: str | Path) -> ClassFolder:
    """List the pictures of a folder of sub-folders, or of a folder without any; other files are named in a warning.

    Args:
        path: The folder.

    Raises:
        DataError: If it is no folder, it or a sub-folder holds no picture, or pictures lie beside sub-folders.

    Example:
        >>> len(load_classes("pictures"))  # doctest: +SKIP
        3
    """
    folder = Path(path)
    found = entries(folder)
    inner = [entry for entry in found if entry.is_dir()]
    loose = [entry.name for entry in found if is_picture(entry)]
    if inner and loose:
        raise DataError(
            f"{folder}: expected pictures in sub-folders named as classes, or no sub-folder, found both {inner[0].name} and "
            f"{loose[0]}; move one of them away"
        )
    files: list[Path] = []
    classes: list[str] = []
    unused = [entry for entry in found if entry not in inner] if inner else []
    for each in inner or [folder]:
        pictures, others = contents(each)
        files += pictures
        classes += [each.name] * len(pictures)
        unused += others
    warn_passed_over(folder, strangers(unused))
    return ClassFolder(tuple(files), tuple(classes) if inner else None)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())
