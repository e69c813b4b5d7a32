"""The file of a fitted guard: one safetensors with one JSON string; no pickle.

A guard is one model and any number of checks, each of a kind, with JSON settings and arrays. The kind says how to make the check
again; this file knows no kind. The reader takes only what the writer writes: it compares every tensor's name, type and shape with
the metadata before it reads one, and a SHA-256 over everything after.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from photopic.core.errors import PhotopicError
from photopic.core.runs import write_atomically

FORMAT = "photopic guard 1"
FIELDS = ["checks", "checksum", "digest", "format", "model", "provenance"]
MAX_METADATA_BYTES = 4 * 1024 * 1024


class GuardFileError(PhotopicError):
    """A file that is not a valid guard; names the file, what was expected and what was found."""


@dataclass(frozen=True, eq=False)
class SavedCheck:
    """One check of a guard.

    Attributes:
        kind: What makes it again, such as ``open_set``.
        settings: JSON values.
        arrays: float64 arrays by name.
    """

    kind: str
    settings: Any
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class SavedGuard:
    """A guard as data.

    Attributes:
        model: Name of the classifier it was fitted on.
        digest: Hash of that classifier's weights.
        checks: In the order they are asked.
        provenance: See ``core.results.provenance``.
    """

    model: str
    digest: str
    checks: Sequence[SavedCheck]
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save(guard: SavedGuard, path: str | Path) -> None:
    """Write a guard, whole or not at all; the same guard gives the same bytes.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "guard.safetensors"
        >>> save(SavedGuard("net", "00" * 32, [SavedCheck("open_set", {"k": 1}, {"bank": np.ones((2, 3))})]), file)
        >>> load(file).checks[0].arrays["bank"].shape
        (2, 3)
    """
    tensors = {
        f"{number}.{name}": np.ascontiguousarray(values, np.float64)
        for number, check in enumerate(guard.checks)
        for name, values in check.arrays.items()
    }
    about: dict[str, Any] = {
        "format": FORMAT,
        "model": guard.model,
        "digest": guard.digest,
        "provenance": dict(guard.provenance),
        "checks": [
            {
                "kind": check.kind,
                "settings": check.settings,
                "arrays": {name: list(values.shape) for name, values in sorted(check.arrays.items())},
            }
            for check in guard.checks
        ],
    }
    about["checksum"] = _checksum(about, tensors)
    write_atomically(Path(path), to_bytes(tensors, {"photopic": _canonical(about)}))


def load(path: str | Path) -> SavedGuard:
    """Read a guard that ``save`` wrote.

    Raises:
        GuardFileError: If the file is no such guard, or damaged.
    """
    name = Path(path).name
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if list(metadata) != ["photopic"] or len(metadata["photopic"]) > MAX_METADATA_BYTES:
                raise GuardFileError(f"{name}: expected a guard that photopic guard fit wrote, found another file")
            about = _parse(name, metadata["photopic"])
            expected = {
                f"{number}.{key}": tuple(shape)
                for number, check in enumerate(about["checks"])
                for key, shape in check["arrays"].items()
            }
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            found = {key: (each.get_dtype(), tuple(each.get_shape())) for key, each in slices.items()}
            for key in sorted(found.keys() | expected.keys()):
                if key not in expected or found.get(key) != ("F64", expected[key]):
                    raise GuardFileError(
                        f"{name}: tensor {key}: expected {expected.get(key, 'none')} in float64, found {found.get(key, 'none')}"
                    )
            tensors = {key: file.get_tensor(key) for key in expected}
    except FileNotFoundError:
        raise GuardFileError(
            f"{path}: expected a guard file, found nothing there; make one: photopic guard fit"
        ) from None
    except (SafetensorError, OSError) as error:
        there = "a folder" if Path(path).is_dir() else f"something else ({error})"
        raise GuardFileError(f"{name}: expected a guard file, found {there}") from None
    checksum = about.pop("checksum")
    if checksum != _checksum(about, tensors):
        raise GuardFileError(
            f"{name}: the checksum does not match the content; the file is damaged, fit the guard again"
        )
    checks = [
        SavedCheck(each["kind"], each["settings"], {key: tensors[f"{number}.{key}"] for key in each["arrays"]})
        for number, each in enumerate(about["checks"])
    ]
    return SavedGuard(about["model"], about["digest"], checks, about["provenance"])


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GuardFileError(f"{name}: metadata: expected JSON, found something else ({error})") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else type(about).__name__
        if isinstance(found, int):  # formats of edits are numbers
            raise GuardFileError(f"{name}: expected a guard, found an edit; make a guard with photopic guard fit")
        raise GuardFileError(
            f"{name}: expected format {FORMAT!r}, found {found!r}; another version of photopic wrote it"
        )
    right = sorted(about) == FIELDS and all(isinstance(about[key], str) for key in ("checksum", "model"))
    right = right and isinstance(about["digest"], str) and bool(re.fullmatch("[0-9a-f]{64}", about["digest"]))
    right = right and isinstance(about["provenance"], dict) and isinstance(about["checks"], list)
    if not right or not all(map(_is_check, about["checks"])) or not about["checks"]:
        raise GuardFileError(f"{name}: metadata: expected the fields {', '.join(FIELDS)} of a guard, found others")
    return about


def _is_check(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and sorted(value) == ["arrays", "kind", "settings"]
        and isinstance(value["kind"], str)
        and isinstance(value["settings"], dict)
        and isinstance(value["arrays"], dict)
        and all(
            isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
            for shape in value["arrays"].values()
        )
    )


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    hasher = hashlib.sha256(_canonical(about).encode())
    for key in sorted(tensors):
        hasher.update(key.encode() + b"\n" + tensors[key].astype("<f8").tobytes())
    return hasher.hexdigest()


def _canonical(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, separators=(",", ":"))
