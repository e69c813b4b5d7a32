"""What a graph is built from: a folder of pictures, scenes of the emoji world, or its concept table, thing by thing.

A thing is read when its turn comes, by whichever process has it. Its content says by hash what an extractor reads of it, so that
nothing is extracted twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from photopic.core.errors import DataError
from photopic.core.files import read_file, what_is_there
from photopic.data import emoji_world, renderings
from photopic.data.captions import METADATA, is_caption, read_captions
from photopic.data.folder import is_picture
from photopic.data.picture_file import decode
from photopic.data.picture_set import SCENES, SEED
from photopic.data.pixels import as_rgb
from photopic.data.scenes import Scene, SceneOptions, sample_scene
from photopic.knowledge.graph.tables import CARD

CONCEPTS = "emoji-world"
FOLDER = "folder"
_ALONE = 10_000  # scenes where no number is given


@dataclass(frozen=True)
class Thing:
    """One thing that extractors read.

    Attributes:
        uri: What the user calls it: a path relative to the folder.
        of: ``folder``, ``emoji-scenes`` or ``emoji-world``.
        content: SHA-256 of it.
        subject: The bytes of a picture file, a ``Scene``, or a ``Concept``.
        caption: Of a picture file, or None.
        labels: The sub-folders that a picture file lies in, from the outermost.
        key: Of its picture's node, as the first extractor found it.
    """

    uri: str
    of: str
    content: str
    subject: Any
    caption: str | None = None
    labels: tuple[str, ...] = ()
    key: str = ""


@runtime_checkable
class Things(Protocol):
    """Where things come from.

    Attributes:
        extractors: Names of the extractors that read them by default; the first one finds the picture's node.
        problems: (uri, problem) of what is not even listed.
        one_picture: Whether each is one picture, which then lies at its uri.
    """

    extractors: tuple[str, ...]
    one_picture: bool

    @property
    def problems(self) -> Sequence[tuple[str, str]]:
        """What cannot even be listed."""

    def uris(self) -> Sequence[str]:
        """All of them, sorted."""

    def read(self, uri: str) -> Thing:
        """One of them; raises a DataError where it cannot be read."""

    def pictures(self, thing: Thing) -> Mapping[str, Callable[[], Image.Image]]:
        """How to draw the pictures of a thing, by the keys of their nodes, for an encoder."""


def things_of(word: str) -> Things:
    """What the user means by a word.

    Args:
        word: A folder, ``emoji-world``, or ``emoji-scenes`` with or without a number.

    Raises:
        DataError: If it is no folder, or a folder without pictures.

    Example:
        >>> things_of("emoji-scenes:3").uris()
        ['scene-00000', 'scene-00001', 'scene-00002']
    """
    if word == CONCEPTS:
        return NamedConcepts()
    name, _, count = word.partition(":")
    if name == SCENES:
        if count and (not count.isdigit() or int(count) < 1):
            raise DataError(f"{word}: expected {SCENES} or {SCENES}:5000, found {count!r} for the number of scenes")
        return DrawnScenes(int(count or _ALONE))
    return PictureFolder(Path(word))


class PictureFolder:
    """All pictures of a folder and its sub-folders, with their captions; hidden ones and graphs do not count.

    Args:
        folder: Where they lie.

    Raises:
        DataError: If it is no folder, or holds no picture.
    """

    extractors: tuple[str, ...] = ("pictures", "captions", "class_folders")
    one_picture = True

    def __init__(self, folder: Path):
        there = what_is_there(folder)
        if there != "a folder":
            raise DataError(f"{folder}: expected a folder of pictures, found {there or 'a file'}; check the path")
        self.folder = folder
        self._problems: list[tuple[str, str]] = []
        self._captions: dict[str, str | None] = {}
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
        return Thing(
            uri, FOLDER, hashlib.sha256(content).hexdigest(), content, self._captions[uri], tuple(uri.split("/")[:-1])
        )

    def pictures(self, thing: Thing) -> dict[str, Callable[[], Image.Image]]:
        """The one picture of a file."""
        return {thing.key: lambda: as_rgb(decode(thing.subject, thing.uri), thing.uri)}


class DrawnScenes:
    """Scenes of the emoji world, of which everything is known.

    Args:
        count: How many.
    """

    extractors: tuple[str, ...] = ("scenes",)
    one_picture = True
    problems: Sequence[tuple[str, str]] = ()

    def __init__(self, count: int):
        self.count = count
        self._options = SceneOptions(concepts=renderings.classes(), tinted=0.2, repeated=0.1)

    def uris(self) -> list[str]:
        """``scene-00000`` and so on."""
        return [f"scene-{number:05d}" for number in range(self.count)]

    def read(self, uri: str) -> Thing:
        """One scene, drawn."""
        scene: Scene = sample_scene(self._options, (SEED, int(uri.rpartition("-")[2])))
        content = hashlib.sha256(scene.image.tobytes() + repr((scene.caption, scene.placements)).encode()).hexdigest()
        return Thing(uri, SCENES, content, scene)

    def pictures(self, thing: Thing) -> dict[str, Callable[[], Image.Image]]:
        """The scene."""
        return {thing.key: lambda: Image.fromarray(thing.subject.image)}


class NamedConcepts:
    """The concept table of the emoji world; each concept is a thing with a picture in every style that draws it."""

    extractors: tuple[str, ...] = ("emoji_concepts",)
    one_picture = False
    problems: Sequence[tuple[str, str]] = ()

    def __init__(self) -> None:
        table = resources.files("photopic.data").joinpath("emoji", "concepts.csv").read_bytes()
        self._table = hashlib.sha256(table).hexdigest()  # keywords count by how often they stand in all of it

    def uris(self) -> list[str]:
        """Names of concepts."""
        return sorted(each.name for each in emoji_world.concepts())

    def read(self, uri: str) -> Thing:
        """One concept."""
        content = hashlib.sha256(f"{self._table} {uri}".encode()).hexdigest()
        return Thing(uri, CONCEPTS, content, emoji_world.concept(uri))

    def pictures(self, thing: Thing) -> dict[str, Callable[[], Image.Image]]:
        """Its drawings over white."""
        return {f"{style}/{thing.uri}": _drawn(thing.uri, style) for style in thing.subject.styles}


def pixel_key(image: Image.Image | np.ndarray) -> str:
    """The key of a picture: SHA-256 of its size and pixels in RGB, whatever its file format.

    Example:
        >>> pixel_key(Image.new("RGB", (2, 2)))[:12]
        '95fb8e4bd2d0'
    """
    pixels = np.ascontiguousarray(np.asarray(image), np.uint8)  # (height, width, 3)
    return hashlib.sha256(f"{pixels.shape[1]}x{pixels.shape[0]} ".encode() + pixels.tobytes()).hexdigest()


def _drawn(name: str, style: str) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(renderings.pictures([(name, style)])[0])


def _walked(folder: Path) -> list[tuple[Path, list[str], list[str]]]:
    """Every folder inside with its names, in order, without hidden ones and without graphs."""
    found = []
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not _is_graph(Path(place) / name))
        found.append((Path(place), inner, names))
    return found


def _is_graph(folder: Path) -> bool:
    return (folder / CARD).is_file() or (folder / "extracted").is_dir()
