"""A folder of pictures as things: what it holds with captions and bags of concepts, and what of it cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from photopic.core.errors import DataError
from photopic.core.files import read_file, what_is_there
from photopic.data.captions import METADATA, is_caption, read_captions
from photopic.data.folder import is_picture
from photopic.data.picture_file import decode
from photopic.data.pixels import as_rgb
from photopic.knowledge.bag_file import lines_of, record_of
from photopic.knowledge.bag_record import BagRecord
from photopic.knowledge.graph.tables import CARD
from photopic.knowledge.graph.thing import FOLDER, Thing

BAGS = "bags.jsonl"  # bags of concepts of the pictures of a folder


class PictureFolder:
    """All pictures of a folder and its sub-folders, with their captions; hidden ones and graphs do not count.

    Args:
        folder: Where they lie.

    Raises:
        DataError: If it is no folder, or holds no picture.
    """

    extractors: tuple[str, ...] = ("pictures", "captions", "class_folders", "bags")
    one_picture = True

    def __init__(self, folder: Path):
        there = what_is_there(folder)
        if there != "a folder":
            raise DataError(f"{folder}: expected a folder of pictures, found {there or 'a file'}; check the path")
        self.folder = folder
        self._problems: list[tuple[str, str]] = []
        self._captions: dict[str, str | None] = {}
        self._bags: dict[str, BagRecord] = {}
        for place, _, names in _walked(folder):
            self._list(place, [place / name for name in sorted(names) if not name.startswith(".")])
        if not self._captions:
            found = f", but {self._problems[0][1]}" if self._problems else ""
            raise DataError(
                f"{folder}: expected at least one picture in it or its sub-folders, found none{found}; put some in it"
            )

    def _list(self, place: Path, files: Sequence[Path]) -> None:
        pictures: list[Path] = []
        for file in files:
            try:
                pictures += [file] if is_picture(file) else []
            except DataError as error:
                self._problems.append(self._said(file, error))
        for picture, caption in self._captioned(pictures, [file for file in files if is_caption(file)]).items():
            self._captions[picture.relative_to(self.folder).as_posix()] = caption
        if place / BAGS in files:
            self._list_bags(place)

    def _list_bags(self, place: Path) -> None:
        """The bags of a folder's pictures; a line that cannot be read costs no other."""
        for number, stated in lines_of(place / BAGS):
            try:
                record = record_of(stated)
            except DataError as error:
                uri, _ = self._said(place / BAGS, error)
                self._problems.append((uri, f"{uri}: line {number}: {error}"))
                continue
            if record.image is not None:
                self._bags[(place / record.image.name).relative_to(self.folder).as_posix()] = record

    def _captioned(self, pictures: Sequence[Path], texts: Sequence[Path]) -> dict[Path, str | None]:
        """The caption of each picture; one that cannot be read costs no other."""
        try:
            found, _ = read_captions(pictures, texts)
        except DataError:
            found = {}
            stems = {str(text): {text.stem.lower()} for text in texts if text.name.lower() != METADATA}
            for picture in pictures:
                own = [
                    text for text in texts if stems.get(str(text), set()) & {picture.stem.lower(), picture.name.lower()}
                ]
                try:
                    found |= read_captions([picture], own)[0]
                except DataError as error:
                    self._problems.append(self._said(picture, error))
            found = self._named(pictures, texts) | found
        return {picture: found.get(picture, (None, b""))[0] for picture in pictures}

    def _named(self, pictures: Sequence[Path], texts: Sequence[Path]) -> dict[Path, Any]:
        """The captions in lists of them, if they can be read."""
        lists = [text for text in texts if text.name.lower() == METADATA]
        try:
            return read_captions(pictures, lists)[0]
        except DataError as error:
            self._problems.append(self._said(lists[0], error))
            return {}

    def _said(self, file: Path, error: DataError) -> tuple[str, str]:
        uri = file.relative_to(self.folder).as_posix()
        return uri, str(error).replace(str(file), uri)

    @property
    def problems(self) -> Sequence[tuple[str, str]]:
        """What cannot even be listed, in the order it was met."""
        return self._problems

    def uris(self) -> list[str]:
        """Paths relative to the folder, sorted."""
        return sorted(self._captions)

    def read(self, uri: str) -> Thing:
        """One picture file, not yet decoded."""
        try:
            content = read_file(self.folder / uri, DataError)
        except DataError as error:
            raise DataError(self._said(self.folder / uri, error)[1]) from error
        digest, labels = hashlib.sha256(content).hexdigest(), tuple(uri.split("/")[:-1])
        return Thing(uri, FOLDER, digest, content, self._captions[uri], self._bags.get(uri), labels)

    def pictures(self, thing: Thing) -> dict[str, Callable[[], Image.Image]]:
        """The one picture of a file."""
        return {thing.key: lambda: as_rgb(decode(thing.subject, thing.uri), thing.uri)}


def _walked(folder: Path) -> list[tuple[Path, list[str], list[str]]]:
    """Every folder inside with its names, in order, without hidden ones and without graphs."""
    found = []
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not _is_graph(Path(place) / name))
        found.append((Path(place), inner, names))
    return found


def _is_graph(folder: Path) -> bool:
    return (folder / CARD).is_file() or (folder / "extracted").is_dir()
