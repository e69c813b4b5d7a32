"""A thing that extractors read: a picture file, a scene or a concept, whose content says by hash what is read of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from photopic.knowledge.bag_record import BagRecord

CONCEPTS = "emoji-world"
FOLDER = "folder"


@dataclass(frozen=True)
class Thing:
    """One thing that extractors read.

    Attributes:
        uri: What the user calls it: a path relative to the folder.
        of: ``folder``, ``emoji-scenes`` or ``emoji-world``.
        content: SHA-256 of it.
        subject: The bytes of a picture file, a ``Scene``, or a ``Concept``.
        caption: Of a picture file, or None.
        bag: Of a picture file, as ``bags.jsonl`` in its folder has it, or None.
        labels: The sub-folders that a picture file lies in, from the outermost.
        key: Of its picture's node, as the first extractor found it.
    """

    uri: str
    of: str
    content: str
    subject: Any
    caption: str | None = None
    bag: BagRecord | None = None
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


def pixel_key(image: Image.Image | np.ndarray) -> str:
    """The key of a picture: SHA-256 of its size and pixels in RGB, whatever its file format.

    Example:
        >>> pixel_key(Image.new("RGB", (2, 2)))[:12]
        'bfc96c2b121e'
    """
    pixels = np.ascontiguousarray(np.asarray(image), np.uint8)  # (height, width, 3)
    return hashlib.sha256(f"{pixels.shape[1]}x{pixels.shape[0]} ".encode() + pixels.tobytes()).hexdigest()
