"""Values as JSON that differs where they differ: what binds a run to its arguments, and what provenance says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = (str, int, float, bool, type(None))  # what is a JSON value as it stands


@runtime_checkable
class HasDigest(Protocol):
    """What says by content what it is: handles, edits and data sets."""

    def digest(self) -> str:
        """Hex sha256 of the content."""


def digest_of(name: str, value: Any) -> Any:
    """JSON that differs where a value differs: by content for models, edits, data and tensors.

    Args:
        name: What to call the value in a message.
        value: An argument of a method.

    Raises:
        TypeError: If nothing says what the value is; give its class a method ``digest``.

    Example:
        >>> digest_of("words", ["a", "b"])
        ['a', 'b']
    """
    if isinstance(value, PLAIN):
        return value
    # before mappings and sequences: a data set may be one and knows a shorter word for itself
    if isinstance(value, HasDigest) and not isinstance(value, type):
        return value.digest() if callable(value.digest) else value.digest
    if hasattr(value, "detach"):  # a tensor
        return _tensor_digest(value)
    if isinstance(value, np.ndarray):
        return hashed(str((value.dtype.str, value.shape)).encode(), np.ascontiguousarray(value).tobytes())
    # by pixels and mode: the file it came from does not count
    if hasattr(value, "__array_interface__"):  # a PIL image
        return [getattr(value, "mode", ""), digest_of(name, np.asarray(value))]
    if isinstance(value, Mapping):
        return {str(key): digest_of(name, each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: digest_of(each.name, getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Sequence):
        return [digest_of(name, each) for each in value]
    if callable(value):
        named = value if hasattr(value, "__qualname__") else type(value)  # an object that can be called
        return f"{named.__module__}.{named.__qualname__}"
    raise TypeError(f"{name}: a {type(value).__name__} does not say what it is; give it a method digest()")


def _tensor_digest(tensor: Tensor) -> str:
    import torch  # whoever has a tensor has imported it

    array = tensor.detach().cpu().contiguous()
    # numpy has no bfloat16; its bytes say as much
    array = array.view(torch.uint8) if array.dtype == torch.bfloat16 else array
    return hashed(str((tensor.dtype, tuple(tensor.shape))).encode(), array.numpy().tobytes())


def plain(config: Any) -> Any:
    """A config as JSON values; what is no JSON value as its digest."""
    if is_dataclass(config) and not isinstance(config, type):
        return {each.name: plain(getattr(config, each.name)) for each in fields(config)}
    if isinstance(config, list | tuple):
        return [plain(each) for each in config]
    return config if isinstance(config, PLAIN) else digest_of("config", config)


def short(digest: Any) -> Any:
    """A digest as it stands in provenance: one of many parts is hashed once more, of several things there are several."""
    if isinstance(digest, list):
        return [short(each) for each in digest]
    return hashed(json.dumps(digest, sort_keys=True).encode()) if isinstance(digest, dict) else digest


def hashed(*contents: bytes) -> str:
    """Hex sha256 of some bytes, one after the other."""
    hasher = hashlib.sha256()
    for content in contents:
        hasher.update(content)
    return hasher.hexdigest()
