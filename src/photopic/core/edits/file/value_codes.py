"""The values of sparse parts as bytes: plain numbers, steps of 8 bits, or codes of 2 bits for four levels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from photopic.core.edits.file.container import DTYPES, Data
from photopic.core.edits.sparse import LEVELS, SparseWeights
from photopic.core.errors import EditFileError
from photopic.core.numerics.int8_steps import STEPS, step_of


def raw(tensor: Tensor) -> bytes:
    """The bytes of a tensor; `vector` is the inverse."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def vector(data: Data, kind: str) -> Tensor:
    """A one-dimensional tensor of bytes; of a bytearray it is a view."""
    if not len(data):
        return torch.zeros(0, dtype=DTYPES[kind])
    return torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=DTYPES[kind])


def packed_values(part: SparseWeights) -> list[bytes]:
    """The bytes of each entry that values of this many bits take; `unpacked_values` is the inverse."""
    values = list(part.values.values())
    if part.bits == 2:
        packed = [_pack_levels(each) for each in values]
        return [b"".join(levels for levels, _ in packed), b"".join(codes for _, codes in packed)]
    if part.bits == 8:
        steps = [step_of(each) for each in values]
        codes = [
            torch.round(v.double() / max(s.double(), torch.tensor(1e-300))).to(torch.int8)
            for v, s in zip(values, steps, strict=True)
        ]
        return [raw(torch.stack(steps)) if steps else b"", b"".join(each.numpy().tobytes() for each in codes)]
    return [b"".join(map(raw, values))]


def unpacked_values(bits: int, positions: Mapping[str, Tensor], data: Mapping[str, Data]) -> dict[str, Tensor]:
    """The values by tensor, one a position.

    Raises:
        EditFileError: If the bytes are not the one form of their values.
    """
    if bits == 2:
        return _unpack_levels(positions, data)
    counts = [len(each) for each in positions.values()]
    if bits == 8:
        return _unpack_steps(positions, data)
    flat = vector(data["values"], "F32" if bits == 32 else "F16")
    return dict(zip(positions, flat.split(counts), strict=True))


def _unpack_steps(positions: Mapping[str, Tensor], data: Mapping[str, Data]) -> dict[str, Tensor]:
    codes = torch.from_numpy(np.frombuffer(data["values"], np.int8).copy())
    values = {}
    pieces = codes.split([len(each) for each in positions.values()])
    for name, step, piece in zip(positions, vector(data["steps"], "F32"), pieces, strict=True):
        values[name] = (piece.double() * step.double()).float()  # a product of 8 and 24 bits is exact in double
        is_one_form = (bool(piece.any()) or not step.view(torch.int32)) and torch.equal(step_of(values[name]), step)
        if int(piece.min()) < -STEPS or not is_one_form or (not step and bool(piece.any())):
            raise EditFileError(f"values: {name}: expected steps from -127 to 127 with one at an end, found others")
    return values


def _pack_levels(values: Tensor) -> tuple[bytes, bytes]:
    """Four ascending levels, the last repeated where there are fewer, and two bits a value."""
    distinct = values.numpy().copy()
    distinct[distinct == 0] = 0  # one zero, not two
    levels, codes = np.unique(distinct, return_inverse=True)
    levels = np.concatenate([levels, np.repeat(levels[-1:], LEVELS - len(levels))]).astype("<f4")
    # four a byte
    padded = np.concatenate([codes, np.zeros(-len(codes) % 4, codes.dtype)]).astype(np.uint8).reshape(-1, 4)
    return levels.tobytes(), (padded << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8).tobytes()


def _unpack_levels(positions: Mapping[str, Tensor], data: Mapping[str, Data]) -> dict[str, Tensor]:
    levels = vector(data["levels"], "F32").view(-1, LEVELS)
    packed, values, at = np.frombuffer(data["values"], np.uint8), {}, 0
    for number, (name, each) in enumerate(positions.items()):
        taken = -(-len(each) // 4)  # bytes
        codes = ((packed[at : at + taken, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(-1)
        if codes[len(each) :].any() or not _are_levels(levels[number], codes[: len(each)]):
            raise EditFileError(f"values: {name}: expected ascending levels, each used, and zero padding, found others")
        values[name], at = levels[number][torch.from_numpy(codes[: len(each)].astype(np.int64))], at + taken
    return values


def _are_levels(levels: Tensor, codes: np.ndarray) -> bool:
    """Whether they are what `_pack_levels` gives: ascending, each used, the last repeated; zero is positive."""
    used = int(codes.max()) + 1  # levels
    rises = bool((levels[1:used] > levels[: used - 1]).all()) and bool((levels[used:] == levels[used - 1]).all())
    return rises and len(np.unique(codes)) == used and not bool(((levels == 0) & levels.signbit()).any())
