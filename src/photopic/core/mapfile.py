"""A ``Map`` as a file: one safetensors with values and pictures, labels and provenance in its metadata; no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from photopic.core.errors import DataError
from photopic.core.files import write_atomically
from photopic.core.results import Map

FORMAT = "photopic map 1"


def save(found: Map, path: str | Path) -> None:
    """Write a map; the same map gives the same bytes.

    Args:
        found: The map; its values are kept as float32.
        path: The file, replaced as a whole if it exists.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "bear.map"
        >>> save(Map(np.ones((1, 1, 2, 2)), ("bear",)), file)
        >>> load(file).labels
        ('bear',)
    """
    about = {"format": FORMAT, "labels": list(found.labels), "provenance": dict(found.provenance)}
    metadata = {"map": json.dumps(about, sort_keys=True)}  # one entry: the order of several would not be fixed
    arrays = {"values": np.ascontiguousarray(found.values, np.float32)}
    if found.images is not None:
        arrays["images"] = np.ascontiguousarray(found.images)
    write_atomically(Path(path), to_bytes(arrays, metadata))


def load(path: str | Path) -> Map:
    """Read a map that ``save`` wrote; files from before maps had pictures hold those of one picture.

    Raises:
        DataError: If the file is no such map.
    """
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {})["map"])
            if about["format"] != FORMAT:
                raise KeyError(about["format"])
            values = file.get_tensor("values")
            values = values[None] if values.ndim == 3 else values  # (labels, h, w) -> (1, labels, h, w)
            images = file.get_tensor("images") if "images" in file.keys() else None  # noqa: SIM118 (no mapping)
            return Map(values, tuple(about["labels"]), about["provenance"], images)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected a map written by photopic, found another file ({error})") from None
