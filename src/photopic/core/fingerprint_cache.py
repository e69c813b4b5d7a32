"""The digest of a model that was loaded from files, kept between processes: hashing gigabytes at every load takes minutes.

One small JSON file a model in ``$PHOTOPIC_CACHE``, else ``$XDG_CACHE_HOME/photopic``, else ``~/.cache/photopic``. Its name is a
hash over path, size and times of every file of the model, over the tensors they became (name, dtype, shape) and over the versions
of the libraries between the two. Where anything is in doubt the model is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.provenance import versions
from photopic.core.runs import write_atomically

_SETTLED_S = 2.0  # the coarsest file systems count time in steps this long


class LoadedDigest:
    """The digest of what was just loaded, good as long as neither the files nor the tensors change.

    Args:
        modules: Component name to module, as loaded and not yet touched.
        files: All files the weights depend on: weights, their index, configurations.
        started: `time.time` before the first of them was read.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> loaded = LoadedDigest({"m": linear}, files=[], started=0.0)
        >>> loaded.find() == fingerprint({"m": linear}, "tiny").digest  # no file: hashed, not kept
        True
        >>> _ = linear.weight.requires_grad_(False).zero_()
        >>> loaded.find() is None
        True
    """

    def __init__(self, modules: Mapping[str, nn.Module], files: Iterable[Path], started: float):
        self._modules = modules
        self._files = sorted(map(os.path.abspath, files))
        self._stats = _stats(self._files)
        newest = max((max(written, changed) for written, changed, _ in self._stats), default=0)
        # a file written just before could have been written twice, the second time while it was read, and look the same
        self._settled = bool(self._files) and newest < (started - _SETTLED_S) * 1e9
        self._tensors = {
            name: (weakref.ref(tensor), tensor.data_ptr(), _version(tensor))
            for name, tensor in named_tensors(modules).items()
        }
        self._samples = _samples(modules)

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _unknown, ()  # a copy has other tensors than those that were loaded

    def find(self) -> str | None:
        """The digest, from the cache or hashed now and put there; None if a tensor was written to or replaced since loading.

        Writing through ``tensor.data`` escapes torch's count of changes; a few sampled entries of every tensor show it unless it
        spared all of them. Kept with the digest, they also show weights that the files lack and that are drawn anew at every load.
        """
        if not self._untouched():
            return None
        # no file has changed since
        path = self._path() if self._settled and _stats(self._files) == self._stats else None
        kept = _read(path, self._samples) if path else None
        if kept is not None:
            return kept
        digest = fingerprint(self._modules, "").digest
        # tensors may be views of the mapped files, so a file written over by now is another model than the one its times name
        if path and self._untouched() and _stats(self._files) == self._stats:
            _write(path, digest, self._samples)
        return digest

    def _untouched(self) -> bool:
        now = named_tensors(self._modules)
        same = now.keys() == self._tensors.keys() and all(
            found() is now[name] and pointer == now[name].data_ptr() and version == _version(now[name])
            for name, (found, pointer, version) in self._tensors.items()
        )
        return same and _samples(self._modules) == self._samples

    def _path(self) -> Path | None:
        folder = cache_folder()
        tensors = [[name, str(t.dtype), list(t.shape)] for name, t in named_tensors(self._modules).items()]
        return folder / f"{_hash([versions(), self._files, self._stats, sorted(tensors)])}.json" if folder else None


def _unknown() -> None:
    return None


def cache_folder() -> Path | None:
    """Where digests are kept; None for a user without a home."""
    if chosen := os.environ.get("PHOTOPIC_CACHE"):
        return Path(chosen).expanduser() / "fingerprints"
    try:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return user / "photopic" / "fingerprints"


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # those of inference mode do not count


def _samples(modules: Mapping[str, nn.Module]) -> str:
    seen = fingerprint(modules, "", named_tensors(modules), digest="")
    return _hash([seen.sketch, sorted(seen.sketches.items())])


def _stats(files: Iterable[str]) -> list[tuple[int, int, int]]:
    """Time of content, time of any change and size of each file; empty if one is gone."""
    try:
        return [(found.st_mtime_ns, found.st_ctime_ns, found.st_size) for found in map(os.stat, files)]
    except OSError:
        return []


def _read(path: Path, samples: str) -> str | None:
    """The kept digest; None where there is none, it is damaged, or it is of other weights."""
    try:
        content = json.loads(path.read_bytes())
        digest = str(content["digest"])
        return digest if content == _entry(path, digest, samples) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(path: Path, digest: str, samples: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(_entry(path, digest, samples)).encode())
    except OSError:  # read-only or full: the next load hashes again
        return


def _entry(path: Path, digest: str, samples: str) -> dict[str, Any]:
    return {"digest": digest, "samples": samples, "check": _hash([path.name, digest, samples])}


def _hash(value: list) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
