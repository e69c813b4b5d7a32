"""What a pipeline's folder says of how its pipeline is to be called: a key of its index that diffusers passes over.

Stable Diffusion 3 without its third text encoder puts ``max_sequence_length`` rows of zeros, 256 unless told otherwise, behind the
words; a model that was trained without them is drawn from by ``pipeline(prompt, max_sequence_length=0)`` and has
``"_call": {"max_sequence_length": 0}`` in its ``model_index.json``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from photopic.core.errors import ModelError
from photopic.core.files import write_atomically
from photopic.models.files import INDEX

KEY = "_call"  # diffusers reads no key that begins so


def read_call_defaults(folder: Path, pipeline: Any) -> dict[str, Any]:
    """The arguments that every call of the pipeline gets; none where the index names none.

    Raises:
        ModelError: If it names something that the pipeline's call does not take.
    """
    stated = json.loads((folder / INDEX).read_text()).get(KEY, {})
    taken = inspect.signature(type(pipeline).__call__).parameters
    unknown = [key for key in stated if key not in taken] if isinstance(stated, dict) else [str(stated)]
    if unknown:
        raise ModelError(
            f"{folder / INDEX}: {KEY}: expected arguments of {type(pipeline).__name__}'s call, found {unknown[0]}; take it out"
        )
    return stated


def write_call_defaults(folder: Path, stated: Mapping[str, Any]) -> None:
    """Write them into the index of a folder that diffusers has saved."""
    if stated:
        index = json.loads((folder / INDEX).read_text()) | {KEY: dict(stated)}
        write_atomically(folder / INDEX, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())
