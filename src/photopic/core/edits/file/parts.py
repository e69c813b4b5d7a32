"""Parts of an edit as their files hold them, and back: fields with tensors, and the same fields with arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from photopic.core.editfile.container import Data
from photopic.core.editfile.content import PartContent
from photopic.core.editfile.layouts import LAYOUTS, DenseLayout, plain
from photopic.core.editfile.value_codes import Numbers
from photopic.core.edits.activations import InitialNoise, ParallelAdapter, SteeringVector, TokenResidual
from photopic.core.edits.adapters import Adapters, ClassifierHead
from photopic.core.edits.dense import DenseDelta, LowRankDelta
from photopic.core.edits.part import Part
from photopic.core.edits.sparse import SparseWeights, ZeroedWeights
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditFileError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SPARSE: tuple[type[Part], ...] = (ZeroedWeights, SparseWeights)
OTHERS: tuple[type[Part], ...] = (
    *(LowRankDelta, DenseDelta, TokenEmbedding, TokenResidual, ParallelAdapter),
    *(SteeringVector, InitialNoise, Adapters, ClassifierHead),
)
KINDS = {each.kind: each for each in (*SPARSE, *OTHERS)}


def part_content(part: Part) -> PartContent:
    """A part as a file holds it; `made_part` is the inverse."""
    found = {each.name: getattr(part, each.name) for each in fields(part)}  # type: ignore[arg-type]  # a dataclass
    to_array = Tensor.numpy if isinstance(part, SPARSE) else _numbers
    return PartContent(part.kind, {name: _each(value, Tensor, to_array) for name, value in found.items()})


def made_part(stored: PartContent) -> Part:
    """The part again.

    Raises:
        EditError: If its fields do not go together.
        EditFileError: If an option is not written as the part has it.
    """
    tensors = {
        name: _each(_each(value, Numbers, _tensor), np.ndarray, torch.from_numpy)
        for name, value in stored.fields.items()
    }
    part, layout = KINDS[stored.kind](**tensors), LAYOUTS[stored.kind]
    for name in layout.options if isinstance(layout, DenseLayout) else ():
        if plain(getattr(part, name)) != plain(stored.fields[name]):
            raise EditFileError(f"{name}: expected one for each tensor, found {plain(stored.fields[name])}")
    return part


def _each(value: Any, kind: type, make: Any) -> Any:
    """A value, or each of a mapping, as something else where it is of a kind."""
    if isinstance(value, Mapping):
        return {name: _each(each, kind, make) for name, each in value.items()}
    return make(value) if isinstance(value, kind) else value


def _numbers(tensor: Tensor) -> Numbers:
    data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return Numbers(NAMES[tensor.dtype], tuple(tensor.shape), data)


def _tensor(numbers: Numbers) -> Tensor:
    data: Data = numbers.data
    if not len(data):
        return torch.zeros(numbers.shape, dtype=DTYPES[numbers.dtype])
    # of a bytearray, which decoded numbers are, it is a view
    data = data if isinstance(data, bytearray) else bytearray(data)
    return torch.frombuffer(data, dtype=DTYPES[numbers.dtype]).view(numbers.shape)
