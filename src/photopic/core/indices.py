"""Sets of parameter positions as bytes: Golomb-Rice coded gaps or a bitmap, whichever is smaller.

A gap is the number of positions skipped before the next one. Its quotient by 2^k is written in unary, its remainder in k bits
(Golomb 1966, Rice 1979). All quotients come first and the remainders follow as k bit planes, so that both directions are a
few numpy calls and no loop over positions.

Layout: one byte kind. Kind 0: a bitmap of ``size`` bits. Kind 1 + k: count (6 bytes), unary quotients, k bit planes of ``count``
bits. Bits run from the lowest to the highest of each byte; unused bits at an end are zero.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from photopic.core.errors import EditError

LARGEST_SIZE = 1 << 48
_BITMAP = 0
_COUNT_BYTES = 6


def encode(positions: Int64[np.ndarray, " count"], size: int) -> bytes:
    """Code a sorted set of positions; `decode` is the inverse.

    Args:
        positions: Strictly increasing positions in ``[0, size)``.
        size: The number of positions there are, at most 2^48.

    Returns:
        The smaller of the two codes; the same bytes for the same set on every machine.

    Raises:
        EditError: If the positions are not strictly increasing or not below ``size``.

    Example:
        >>> decode(encode(np.array([2, 3, 11]), size=20), size=20)
        array([ 2,  3, 11])
    """
    _check_size(size)
    count = len(positions)
    gaps = np.diff(positions, prepend=-1) - 1
    if count and (gaps.min() < 0 or positions[-1] >= size):
        raise EditError(f"positions must be strictly increasing in [0, {size}), found {_first_wrong(positions, size)}")
    k, unary_bits = _best_parameter(gaps, size)
    rice_bytes = 1 + _COUNT_BYTES + _bytes(unary_bits) + k * _bytes(count)
    if 1 + _bytes(size) <= rice_bytes:
        bits = np.zeros(size, np.bool_)
        bits[positions] = True
        return bytes([_BITMAP]) + _pack(bits)
    unary = np.zeros(unary_bits, np.bool_)
    unary[np.cumsum(gaps >> k) + np.arange(count)] = True  # each quotient ends with a one
    planes = [_pack(((gaps >> bit) & 1).astype(np.bool_)) for bit in range(k)]
    return bytes([1 + k]) + count.to_bytes(_COUNT_BYTES, "little") + _pack(unary) + b"".join(planes)


def decode(data: bytes, size: int) -> Int64[np.ndarray, " count"]:
    """The positions that `encode` wrote; everything is checked, and memory stays within a fixed multiple of ``len(data)``.

    Args:
        data: What `encode` returned.
        size: The same size as given there.

    Returns:
        Strictly increasing positions in ``[0, size)``.

    Raises:
        EditError: If the bytes are not a whole code for this size.

    Example:
        >>> decode(encode(np.array([0]), size=1), size=1)
        array([0])
    """
    _check_size(size)
    if not data:
        raise EditError("index code: expected at least 1 byte, found 0")
    if data[0] == _BITMAP:
        return np.flatnonzero(_unpack(data[1:], size, "bitmap"))
    return _decode_rice(data, size, k=data[0] - 1)


def entropy_bytes(count: int, size: int) -> float:
    """The bytes that ``count`` of ``size`` positions cost at least if each were drawn alone: size x H(count / size) / 8.

    Example:
        >>> entropy_bytes(8, 16)
        2.0
    """
    density = count / size if size else 0.0
    if density in (0.0, 1.0):
        return 0.0
    return -size / 8 * float(density * np.log2(density) + (1 - density) * np.log2(1 - density))


def _decode_rice(data: bytes, size: int, k: int) -> Int64[np.ndarray, " count"]:
    head = 1 + _COUNT_BYTES
    count = int.from_bytes(data[1:head], "little")
    plane_bytes = _bytes(count)
    unary_bytes = len(data) - head - k * plane_bytes
    # The last test keeps every sum below in 64 bits; the best parameter always meets it (see _best_parameter).
    if len(data) < head or unary_bytes < plane_bytes or count > size or (k and not 0 < count << k <= 2 * size):
        raise EditError(f"index code: {len(data)} bytes cannot hold {count} of {size} positions with parameter {k}")
    unary = np.unpackbits(np.frombuffer(data, np.uint8, unary_bytes, head), bitorder="little").view(np.bool_)
    ends = np.flatnonzero(unary)
    if len(ends) != count or (_bytes(int(ends[-1]) + 1) if count else 0) != unary_bytes:
        raise EditError(f"index code: expected {count} quotients in {unary_bytes} bytes, found {len(ends)}")
    if k == 0:
        positions = ends
    else:
        if count and (int(ends[-1]) - count + 1) << k > size:
            raise EditError(f"index code: a position lies outside [0, {size})")
        remainders = np.zeros(count, np.int64)
        for bit in range(k):
            start = head + unary_bytes + bit * plane_bytes
            plane = _unpack(data[start : start + plane_bytes], count, f"bit plane {bit}")
            remainders |= plane.astype(np.int64) << bit
        order = np.arange(count)
        positions = ((ends - order) << k) + np.cumsum(remainders) + order
    if count and positions[-1] >= size:
        raise EditError(f"index code: position {positions[-1]} lies outside [0, {size})")
    return positions


def _best_parameter(gaps: Int64[np.ndarray, " count"], size: int) -> tuple[int, int]:
    """The k with the fewest bits, and the bits of its unary part.

    Bits are convex in k, and going beyond 2^k >= size / count costs ``count`` bits to save no more than that.
    """
    count = len(gaps)
    if not count:
        return 0, 0
    k = (-(-size // count) - 1).bit_length()
    unary = int((gaps >> k).sum())
    while k > 0:
        smaller = int((gaps >> (k - 1)).sum())
        if smaller - count > unary:
            break
        k, unary = k - 1, smaller
    return k, unary + count


def _check_size(size: int) -> None:
    if not 0 <= size <= LARGEST_SIZE:
        raise EditError(f"index code: expected a size between 0 and 2^48, found {size}")


def _first_wrong(positions: Int64[np.ndarray, " count"], size: int) -> str:
    outside = (positions < 0) | (positions >= size)
    if outside.any():
        return f"{positions[outside.argmax()]}"
    at = int((np.diff(positions) <= 0).argmax())
    return f"{positions[at]} followed by {positions[at + 1]}"


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _pack(bits: np.ndarray) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()


def _unpack(data: bytes, count: int, what: str) -> np.ndarray:
    if len(data) != _bytes(count):
        raise EditError(f"index code: {what}: expected {_bytes(count)} bytes, found {len(data)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").view(np.bool_)
    if bits[count:].any():
        raise EditError(f"index code: {what}: the unused bits at the end are not zero")
    return bits[:count]
