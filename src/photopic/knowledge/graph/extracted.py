"""What extractors found so far, kept by content, in files that a kill leaves whole or absent.

A part is a file of JSON lines, or of features, named by its own hash; so two processes never write the same name for different
things, and a part written twice is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16

from photopic.core.digests import hashed
from photopic.core.errors import DataError
from photopic.core.files import write_atomically
from photopic.knowledge.graph.assemble import Rows
from photopic.knowledge.graph.index import mapped
from photopic.knowledge.graph.records import Found

FEATURES = "features"


@dataclass(frozen=True)
class Named:
    """The pictures and texts among what was found in one thing.

    Attributes:
        pictures: Keys of image nodes, as they came.
        texts: Keys of text nodes.
    """

    pictures: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


class Extracted:
    """The parts in a folder, and what is not yet in one.

    Args:
        folder: Of the parts; made if missing.
        encoder: Fingerprint of the model whose features are asked for, or empty.

    Raises:
        DataError: If a part is damaged.
    """

    def __init__(self, folder: Path, encoder: str = ""):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.encoder = folder, encoder
        self._found: dict[tuple[str, str], Named] = {}
        self._encoded: set[tuple[str, str]] = set()  # (kind, key)
        self._lines: list[str] = []
        self._features: dict[str, list[tuple[str, Any]]] = {}
        for path in self.lines():
            for line in _lines(path):
                self._found[line["source"], line["content"]] = _named(line["nodes"])
        for kind, keys, _ in self._parts():
            self._encoded.update((kind, key) for key in keys)

    def lines(self) -> list[Path]:
        """The parts of nodes and edges."""
        return sorted(self.folder.glob("*.jsonl"))

    def found(self, source: str, content: str) -> Named | None:
        """What an extractor found in a content, or None where it has not read it."""
        return self._found.get((source, content))

    def add(self, source: str, content: str, found: Found) -> Named:
        """Keep what an extractor found; it is on the disk after ``flush``."""
        line = found.line(source, content)
        self._lines.append(line)
        self._found[source, content] = named = _named(json.loads(line)["nodes"])
        return named

    def lacks(self, kind: str, key: str) -> bool:
        """Whether a node has no features of this encoder yet."""
        return (kind, key) not in self._encoded

    def add_features(self, kind: str, keys: Sequence[str], features: Float16[np.ndarray, "nodes dim"]) -> None:
        """Keep features of some nodes of a kind."""
        self._features.setdefault(kind, []).extend(zip(keys, features, strict=True))
        self._encoded.update((kind, key) for key in keys)

    def flush(self) -> None:
        """Write what was added, each file whole or not at all."""
        if self._lines:
            content = "".join(line + "\n" for line in self._lines).encode()
            write_atomically(self.folder / f"{hashed(content)[:32]}.jsonl", content)
        for kind, rows in self._features.items():
            from safetensors.numpy import save

            metadata = {"kind": kind, "encoder": self.encoder, "keys": json.dumps([key for key, _ in rows])}
            content = save({FEATURES: np.stack([row for _, row in rows])}, metadata)
            write_atomically(self.folder / f"{hashed(content)[:32]}.safetensors", content)
        self._lines, self._features = [], {}

    def rows(self, kind: str) -> Rows:
        """The function that gives features of nodes of a kind by their keys."""

        def of(keys: Sequence[str]) -> Float16[np.ndarray, "nodes dim"]:
            place = {key: number for number, key in enumerate(keys)}
            found: Any = None
            filled = np.zeros(len(keys), bool)
            for _, known, tensor in self._parts(kind):
                found = np.zeros((len(keys), tensor.shape[1]), np.float16) if found is None else found
                chosen = [(place[key], row) for row, key in enumerate(known) if key in place]
                if chosen:
                    to, rows = np.array(chosen).T
                    found[to], filled[to] = tensor[rows], True
            if not filled.all():
                lacking = keys[int(np.argmin(filled))]
                raise DataError(
                    f"features: expected one row for every {kind}, found none for {lacking!r}; build the graph again"
                )
            return np.asarray(found)

        return of

    def _parts(self, kind: str | None = None) -> Iterator[tuple[str, list[str], Any]]:
        """Kind, keys and features of each part of this encoder."""
        for path in sorted(self.folder.glob("*.safetensors")):
            tensors, metadata = mapped(path)
            if metadata.get("encoder") == self.encoder and kind in (None, metadata["kind"]):
                yield metadata["kind"], json.loads(metadata["keys"]), tensors[FEATURES]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number}: expected JSON, found {error}; delete the file, it is made again"
                ) from None


def _named(nodes: Sequence[dict[str, Any]]) -> Named:
    keys = {
        kind: tuple(dict.fromkeys(each["key"] for each in nodes if each["kind"] == kind)) for kind in ("image", "text")
    }
    return Named(keys["image"], keys["text"])
