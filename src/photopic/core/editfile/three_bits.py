"""Numbers of 3 bits, one a byte or eight in 3 bytes: the lowest bits first, eight numbers at a time as one word of 64 bits."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

# Each step brings neighbours together: 3 bits in each byte, 6 in two bytes, 12 in four, 24 in eight.
_STEPS = ((5, 0x003F003F003F003F), (10, 0x00000FFF00000FFF), (20, 0x0000000000FFFFFF))
_BACK = ((20, 0x00000FFF00000FFF), (10, 0x003F003F003F003F), (5, 0x0707070707070707))


def pack(values: UInt8[np.ndarray, " count"]) -> UInt8[np.ndarray, " bytes"]:
    """Values below 8 together; `unpack` is the inverse.

    Example:
        >>> unpack(pack(np.array([5, 0, 7], np.uint8)), 3).tolist()
        [5, 0, 7]
    """
    words = _filled(values, 8).view("<u8")  # (count,) -> (count / 8,)
    for shift, mask in _STEPS:
        words = (words | words >> np.uint64(shift)) & np.uint64(mask)
    packed = np.empty((len(words), 3), np.uint8)
    for place in range(3):
        packed[:, place] = words >> np.uint64(8 * place)  # its lowest byte
    return packed.reshape(-1)[: -(-3 * len(values) // 8)]


def unpack(packed: UInt8[np.ndarray, " bytes"], count: int) -> UInt8[np.ndarray, " count"]:
    """The first values that were packed."""
    taken = _filled(packed[: -(-3 * count // 8)], 3)
    words = taken[0::3] | taken[1::3].astype("<u8") << np.uint64(8) | taken[2::3].astype("<u8") << np.uint64(16)
    for shift, mask in _BACK:
        words = (words | words << np.uint64(shift)) & np.uint64(mask)
    return words.view(np.uint8)[:count]


def _filled(values: UInt8[np.ndarray, " count"], whole: int) -> UInt8[np.ndarray, " filled"]:
    """Zeros behind the values, up to a multiple."""
    return np.pad(values, (0, -len(values) % whole)) if len(values) % whole else values
