"""A folder of slow results: each with the seconds it took, under the hash of all that decides it.

All that decides a result is its key: settings, data, seeds, and the code that makes it, as ``code_of`` reads it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from photopic.core.edits import Edit, Part
from photopic.core.edits import file as edit_file
from photopic.core.errors import EditFileError
from photopic.core.runs import write_atomically


class NotMeasured(Exception):
    """Something was asked of a cache that only reads, and no run kept it."""


class ResultCache:
    """A folder of results.

    Args:
        folder: Created if missing.
        only_reads: Whether what is missing raises ``NotMeasured`` instead of being made.

    Attributes:
        used: Own seconds of every result asked for, and of those that it was made from, by the name of its file.
        made_s: Seconds this process itself spent making results.

    Example:
        >>> cache = ResultCache(tmp_path)
        >>> cache.value({"square of": 3}, lambda: 3 * 3), cache.value({"square of": 3}, lambda: None)
        (9, 9)
    """

    def __init__(self, folder: Path, *, only_reads: bool = False):
        self.folder, self.only_reads = folder, only_reads
        folder.mkdir(parents=True, exist_ok=True)
        self.used: dict[str, float] = {}
        self.made_s = 0.0

    def value(self, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """A JSON value, made if it is not there."""
        return self._entry(key, make)["value"]

    def file(self, key: Mapping[str, Any], suffix: str, make: Callable[[Path], object]) -> Path:
        """A file that ``make`` writes to the path it is given, whole or not at all."""
        path = self.folder / f"{key_hash(key)}{suffix}"

        def write() -> None:
            make(path)

        self._entry(key, write)
        return path

    def array(self, key: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array, such as pictures or features."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, make())

        found: np.ndarray = np.load(self.file(key, ".npy", write))
        return found

    def edit(self, key: Mapping[str, Any], make: Callable[[], Edit]) -> Edit:
        """An edit; made again where the form of edit files has changed since it was kept."""

        def write(path: Path) -> None:
            edit_file.save(make(), path)

        path = self.file(key, ".edit", write)
        try:
            return edit_file.load(path)
        except EditFileError as error:
            print(f"made again: {error}", flush=True)
            path.with_suffix(".json").unlink()
            return edit_file.load(self.file(key, ".edit", write))

    @property
    def seconds(self) -> float:
        """What everything used cost to make, whenever and by whichever process it was made."""
        return sum(self.used.values())

    def _entry(self, key: Mapping[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
        name = key_hash(key)
        path = self.folder / f"{name}.json"
        if not path.exists():
            if self.only_reads:
                raise NotMeasured(name)
            outer, self.used = self.used, {}
            began, made_before = time.monotonic(), self.made_s
            try:
                value = make()
                own = time.monotonic() - began - (self.made_s - made_before)  # what was made inside counts for itself
                self.made_s += own
                entry = {"key": plain(key), "seconds": round(own, 3), "uses": self.used, "value": value}
            finally:
                self.used = outer
            write_atomically(path, json.dumps(entry).encode())
        found: dict[str, Any] = json.loads(path.read_text())
        self.used |= found["uses"] | {name: found["seconds"]}
        return found


def key_hash(key: Mapping[str, Any]) -> str:
    """The name a key is kept under."""
    return hashlib.sha256(json.dumps(plain(key), sort_keys=True).encode()).hexdigest()[:24]


def plain(value: Any) -> Any:
    """Dataclasses and mappings as JSON objects, sequences as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def content_of(parts: Sequence[Part]) -> str:
    """Hex sha256 of what the parts of an edit do."""
    digest = hashlib.sha256()
    for part in parts:
        for field in fields(part):  # type: ignore[arg-type]  # every kind of part is a dataclass
            value = getattr(part, field.name)
            digest.update(f"{type(part).__name__}.{field.name} ".encode())
            for name, item in sorted(value.items()) if isinstance(value, Mapping) else [("", value)]:
                digest.update(f"{name} ".encode() + _bytes(item))
    return digest.hexdigest()


def _bytes(item: Any) -> bytes:
    if isinstance(item, torch.Tensor):
        raw = item.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"{item.dtype} {tuple(item.shape)} ".encode() + raw
    return repr(item).encode()
