"""``*.conditions``: a set of conditions as a file, one safetensors with one JSON entry in its metadata; no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from photopic.core.errors import DataError
from photopic.core.files import check_file, write_atomically
from photopic.data.conditions import KINDS, LOCAL, Conditions

FORMAT = "photopic conditions 1"
SUFFIX = ".conditions"
LARGEST = 4096  # side in pixels that a file may state
LONGEST = 100_000  # letters of a caption, numbers of an embedding


def save_conditions(found: Conditions, path: str | Path) -> None:
    """Write conditions; the same conditions give the same bytes.

    Args:
        found: The conditions.
        path: The file, replaced as a whole if it exists.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "bear.conditions"
        >>> save_conditions(Conditions(8, {"caption": "a bear"}), file)
        >>> load_conditions(file).values
        {'caption': 'a bear'}
    """
    about = {"format": FORMAT, "size": found.size, "sources": dict(found.sources), "encoder": found.encoder}
    about |= {"caption": found.values["caption"]} if "caption" in found.values else {}
    metadata = {"conditions": json.dumps(about, sort_keys=True)}  # one entry: the order of several would not be fixed
    arrays = {name: np.ascontiguousarray(found.values[name]) for name in found.names if name != "caption"}
    write_atomically(Path(path), to_bytes(arrays, metadata))


def load_conditions(path: str | Path) -> Conditions:
    """Read conditions that ``save_conditions`` wrote; sizes are checked before anything is read.

    Raises:
        DataError: If the file is no such file, or what it holds is no condition; says what.
    """
    check_file(Path(path), DataError)
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})["conditions"])
            size, names = _checked(about), file.keys()
            for name in names:
                _check_shape(name, file.get_slice(name).get_shape(), size)
            values = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        if isinstance(error, DataError):
            raise DataError(f"{path}: {error}") from None
        raise DataError(f"{path}: expected conditions written by photopic, found another file ({error})") from None
    values = ({"caption": about["caption"]} if "caption" in about else {}) | values
    try:
        found = Conditions(
            size, {name: values[name] for name in KINDS if name in values}, about["sources"], about["encoder"]
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return found


def _checked(about: dict[str, object]) -> int:
    """The size that a file states, once all it states is what it should be."""
    size, sources, caption = about["size"], about["sources"], about.get("caption", "a")
    if about["format"] != FORMAT or set(about) - {"caption"} != {"format", "size", "sources", "encoder"}:
        raise KeyError(about["format"])
    if type(size) is not int or not 1 <= size <= LARGEST:
        raise DataError(f"size: expected 1 to {LARGEST} pixels, found {size!r}")
    if not isinstance(sources, dict) or not all(isinstance(each, str) for each in [*sources, *sources.values()]):
        raise DataError(f"sources: expected words by condition, found {sources!r}")
    if not isinstance(about["encoder"], str) or not isinstance(caption, str) or len(caption) > LONGEST:
        raise DataError("encoder and caption: expected words, found something else")
    return size


def _check_shape(name: str, shape: list[int], size: int) -> None:
    """Refuse a tensor that is none of a condition before it takes memory."""
    local = [KINDS[name].channels, size, size] if name in LOCAL else None
    if name == "caption" or name not in KINDS or (shape != local if local else len(shape) != 1 or shape[0] > LONGEST):
        raise DataError(f"{name}: expected a condition of {size} pixels, found a tensor of {tuple(shape)}")
