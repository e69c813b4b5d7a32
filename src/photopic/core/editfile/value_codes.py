"""Numbers as bytes: plain ones of a tensor, and those of sparse parts, at 8 bits as steps and at 2 as codes of four levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from photopic.core.editfile.container import Data
from photopic.core.errors import EditFileError

LEVELS = 4  # what 2 bits tell apart
STEPS = 127  # of 8 bits, on either side of zero
Values = Float[np.ndarray, " count"]  # float32, or float16 at 16 bits


@dataclass(frozen=True, eq=False)
class Numbers:
    """A tensor as a file holds it.

    Attributes:
        dtype: ``F32``, ``F16`` or ``BF16``.
        shape: Of the tensor.
        data: Its bytes, the last axis fastest, lower bytes first.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Data

    def array(self) -> np.ndarray:
        """The same numbers as an array; those of bfloat16, which numpy lacks, as float32, of which they are the upper half.

        Example:
            >>> Numbers("BF16", (1,), bytes([0x80, 0x3F])).array()
            array([1.], dtype=float32)
        """
        if self.dtype == "BF16":
            halves = np.frombuffer(self.data, "<u2").astype("<u4")
            return (halves << np.uint32(16)).view("<f4").reshape(self.shape)
        return np.frombuffer(self.data, {"F32": "<f4", "F16": "<f2"}[self.dtype]).reshape(self.shape)


def step_for(largest: float) -> float:
    """The even step of 8 bits: the largest magnitude over 127, rounded up to 8 significant bits; 0 if all values are 0.

    With so short a step every multiple up to 127 is exact in float32, and the step can be read off the rounded values.

    Example:
        >>> step_for(127.0)
        1.0
    """
    if not largest or not math.isfinite(largest):
        return largest
    mantissa, exponent = math.frexp(largest / STEPS)
    return math.ldexp(math.ceil(mantissa * 256 * (1 - 2**-40)) / 256, exponent)


def packed_values(bits: int, values: Sequence[np.ndarray]) -> list[bytes]:
    """The bytes of each entry that values of this many bits take; `unpacked_values` is the inverse."""
    if bits == 2:
        packed = [_pack_levels(each) for each in values]
        return [b"".join(levels for levels, _ in packed), b"".join(codes for _, codes in packed)]
    if bits == 8:
        steps = [_step_of(each) for each in values]
        codes = [
            np.rint(each.astype(np.float64) / max(float(step), 1e-300)).astype(np.int8)
            for each, step in zip(values, steps, strict=True)
        ]
        return [np.array(steps, "<f4").tobytes(), b"".join(each.tobytes() for each in codes)]
    return [b"".join(each.tobytes() for each in values)]


def unpacked_values(bits: int, positions: Mapping[str, np.ndarray], data: Mapping[str, Data]) -> Any:
    """The values by tensor, one a position.

    Raises:
        EditFileError: If the bytes are not the one form of their values.
    """
    if bits == 2:
        return _unpack_levels(positions, data)
    if bits == 8:
        return _unpack_steps(positions, data)
    # one copy, which the tensors made of it may then share
    flat = np.frombuffer(bytearray(data["values"]), "<f4" if bits == 32 else "<f2")
    return dict(zip(positions, _pieces(flat, positions), strict=True))


def _pieces(flat: np.ndarray, positions: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What stands one after the other, by tensor."""
    return np.split(flat, np.cumsum([len(each) for each in positions.values()])[:-1]) if positions else []


def _step_of(values: Values) -> np.float32:
    return np.float32(step_for(float(np.abs(values).max(initial=0.0))))


def _unpack_steps(positions: Mapping[str, np.ndarray], data: Mapping[str, Data]) -> dict[str, np.ndarray]:
    codes, steps = np.frombuffer(data["values"], np.int8), np.frombuffer(data["steps"], "<f4")
    values = {}
    for name, step, piece in zip(positions, steps, _pieces(codes, positions), strict=True):
        with np.errstate(all="ignore"):  # what is not finite is refused by who makes a part of it
            values[name] = (piece * np.float64(step)).astype(np.float32)  # 8 and 24 bits: exact in double
        is_one_form = bool(piece.any()) or not step.view(np.int32)  # of zeros the step is zero, not minus zero
        is_one_form = is_one_form and bool(_step_of(values[name]) == step)
        if int(piece.min()) < -STEPS or not is_one_form or (not step and bool(piece.any())):
            raise EditFileError(f"values: {name}: expected steps from -127 to 127 with one at an end, found others")
    return values


def _pack_levels(values: Values) -> tuple[bytes, bytes]:
    """Four ascending levels, the last repeated where there are fewer, and two bits a value."""
    distinct = values.copy()
    distinct[distinct == 0] = 0  # one zero, not two
    levels, codes = np.unique(distinct, return_inverse=True)
    levels = np.concatenate([levels, np.repeat(levels[-1:], LEVELS - len(levels))]).astype("<f4")
    # four a byte
    padded = np.concatenate([codes, np.zeros(-len(codes) % 4, codes.dtype)]).astype(np.uint8).reshape(-1, 4)
    return levels.tobytes(), (padded << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8).tobytes()


def _unpack_levels(positions: Mapping[str, np.ndarray], data: Mapping[str, Data]) -> dict[str, np.ndarray]:
    levels = np.frombuffer(data["levels"], "<f4").reshape(-1, LEVELS)
    packed, values, at = np.frombuffer(data["values"], np.uint8), {}, 0
    for number, (name, each) in enumerate(positions.items()):
        taken = -(-len(each) // 4)  # bytes
        codes = ((packed[at : at + taken, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(-1)
        if codes[len(each) :].any() or not _are_levels(levels[number], codes[: len(each)]):
            raise EditFileError(f"values: {name}: expected ascending levels, each used, and zero padding, found others")
        values[name], at = levels[number][codes[: len(each)]], at + taken
    return values


def _are_levels(levels: np.ndarray, codes: np.ndarray) -> bool:
    """Whether they are what `_pack_levels` gives: ascending, each used, the last repeated; zero is positive."""
    used = int(codes.max()) + 1  # levels
    rises = bool((levels[1:used] > levels[: used - 1]).all()) and bool((levels[used:] == levels[used - 1]).all())
    return rises and len(np.unique(codes)) == used and not bool(((levels == 0) & np.signbit(levels)).any())
