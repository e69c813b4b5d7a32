"""One set of positions as bytes, within three per cent of the entropy of a random set at densities up to one half.

Which code is used follows from ``count`` and ``size`` alone and each code is a bijection, so that a set has exactly one form and a
reader knows every length before it allocates. Layout: ``count``, in as many bytes as ``size`` needs, then by density

* below 0.34 the gaps (positions skipped before the next one) in a Golomb code with divisor 2^j or 3 x 2^j (Golomb 1966): the j
  low bits, the ternary digit as 0, 10, 11, and last the quotient in unary;
* from 0.34 each three positions in a prefix code of 2 to 4 bits (a Huffman code for densities near 0.38, where every divisor is
  4 % off);
* from 0.43 one bit for each position.

The bits of one kind stand together as planes and not symbol by symbol, so that both directions are a few numpy calls a block and
no loop over positions. Bits run from the lowest to the highest of each byte; unused bits at the end of a plane are zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from photopic.core.editfile import three_bits
from photopic.core.editfile.bit_planes import BitStream, PlaneReader, pack, packed, unpack
from photopic.core.errors import EditError

_TRIPLES_FROM, _BITMAP_FROM = 34, 43  # per cent
_BLOCK = 1 << 14  # bytes of a plane, or positions, coded at a time; what is touched then stays in the cache
# The leaf of the prefix code for three positions (lowest bit first): a digit of two bits x 4, then the next bit x 2, then the last.
# Digit 0 (no position) ends there, digits 1 and 2 have one more bit, digit 3 has one more for 5 and two more for 6 and 7.
_LEAVES = np.array([0, 4, 6, 10, 8, 12, 14, 15], np.uint8)
_DEEP = 14
_TRIPLES = np.zeros(16, np.uint8)  # the three positions of a leaf, the inverse of _LEAVES
_TRIPLES[_LEAVES] = np.arange(8)


def encode_set(positions: Int64[np.ndarray, " count"], size: int) -> bytes:
    """Code strictly increasing positions in ``[0, size)``; `decode_set` is the inverse.

    Example:
        >>> decode_set(encode_set(np.array([2, 3, 11]), 20), 20)
        array([ 2,  3, 11])
    """
    count = len(positions)
    if count and 100 * count >= _TRIPLES_FROM * size:
        return _count(count, size) + _encode_bitmap(_bitmap_of([positions], size), count, size)
    return _count(count, size) + (_encode_gaps(np.diff(positions, prepend=-1) - 1, size) if count else b"")


def encode_gaps(gaps: Integer[np.ndarray, " count"], size: int) -> bytes:
    """The code of a set by how many positions are skipped before each; as `encode_set`, with less memory.

    Example:
        >>> encode_gaps(np.array([2, 0, 7]), 20) == encode_set(np.array([2, 3, 11]), 20)
        True
    """
    count = len(gaps)
    if not count or 100 * count < _TRIPLES_FROM * size:
        return _count(count, size) + (_encode_gaps(gaps.astype(np.int64), size) if count else b"")
    return _count(count, size) + _encode_bitmap(_bitmap_of(_summed(gaps), size), count, size)


def decode_set(data: memoryview | bytes, size: int) -> Int64[np.ndarray, " count"]:
    """The positions that `encode_set` wrote; memory stays within a fixed multiple of ``len(data)``.

    Raises:
        EditError: If ``data`` is not what `encode_set` gives for some set below ``size``.

    Example:
        >>> decode_set(encode_set(np.array([0]), 1), 1)
        array([0])
    """
    blocks = [block + start if start else block for start, block in decode_blocks(data, size)]
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.int64), *blocks])


def decode_blocks(data: memoryview | bytes, size: int) -> Iterator[tuple[int, Int64[np.ndarray, " block"]]]:
    """The same a block at a time, so that whoever goes on with it finds it in the cache; checked once the last is taken.

    Yields:
        A number, and what the positions of the block exceed it by.
    """
    head = _count_bytes(size)
    count = int.from_bytes(data[:head], "little")
    rest = PlaneReader(np.frombuffer(data, np.uint8)[head:])
    if len(data) < head or count > size or (not count and rest.left):
        raise EditError(f"index code: {len(data)} bytes cannot hold {count} of {size} positions")
    if not count:
        return
    density = 100 * count
    if density < _TRIPLES_FROM * size:
        yield 0, _decode_gaps(rest, count, size)
        return
    found = 0
    for start, flags in _bitmap(rest, size) if density >= _BITMAP_FROM * size else _decode_triples(rest, size):
        block = np.flatnonzero(flags.view(np.bool_))
        found += len(block)
        if found > count or (len(block) and start + int(block[-1]) >= size):
            raise EditError(f"index code: expected {count} positions in [0, {size}), found more, or one outside")
        yield start, block
    rest.check_end()
    if found != count:
        raise EditError(f"index code: expected {count} positions in [0, {size}), found {found}")


@dataclass(frozen=True)
class _Divisor:
    """The Golomb divisor 2^low, or 3 x 2^low."""

    low: int
    ternary: bool

    @property
    def value(self) -> int:
        return (3 if self.ternary else 1) << self.low


def _divisor(count: int, size: int) -> _Divisor:
    """The divisor for ``count`` of ``size`` positions.

    A divisor m is best where x = -m ln(1 - density) is near ln 2 (Gallager and Van Voorhis 1975). With count / (size - count / 2)
    for the logarithm, good to second order, k is the smallest with x >= 0.43 for m = 2^k; where x < 0.55, 3 x 2^(k-1) costs less.
    """
    twice, rest = 2 * count, 2 * size - count
    k = max(0, (43 * rest).bit_length() - (100 * twice).bit_length() - 1)
    while (100 * twice << k) < 43 * rest:
        k += 1
    ternary = (100 * twice << k) < 55 * rest
    return _Divisor(k - 1 if ternary else k, ternary)


def _encode_gaps(gaps: Int64[np.ndarray, " count"], size: int) -> bytes:
    divisor, count = _divisor(len(gaps), size), len(gaps)
    planes = [(gaps >> bit).astype(np.uint8).tobytes() for bit in range(0, divisor.low - 7, 8)]
    planes += [pack(gaps >> bit & 1) for bit in range(divisor.low // 8 * 8, divisor.low)]
    quotients = gaps >> divisor.low
    if divisor.ternary:
        quotients, digits = np.divmod(quotients, 3)
        planes += [pack(digits > 0), pack(digits[digits > 0] > 1)]
    ends = np.cumsum(quotients) + np.arange(count)
    unary = np.zeros(int(ends[-1]) + 1, np.bool_)
    unary[ends] = True  # each quotient ends with a one
    return b"".join([*planes, pack(unary)])


def _decode_gaps(rest: PlaneReader, count: int, size: int) -> Int64[np.ndarray, " count"]:
    """Position i is m (end_i - i) + (sum of remainders up to i) + i, so m end_i + (sum of steps up to i) + m - 1."""
    divisor = _divisor(count, size)
    m = divisor.value
    rest.check_holds(count * (divisor.low + divisor.ternary + 1))
    steps, unary = _decode_steps(rest, count, divisor), rest.take(rest.left)
    positions, done, summed = np.empty(count, np.int64), 0, 0
    for start in range(0, len(unary), _BLOCK):
        ends = np.flatnonzero(unpack(unary[start : start + _BLOCK]).view(np.bool_))
        if not len(ends):
            continue
        stop = done + len(ends)
        # In Python's integers, so that what is multiplied below is known to fit 64 bits.
        if stop > count or (8 * start + int(ends[-1]) + 1 - stop) * m >= size:
            raise EditError(f"index code: expected {count} positions in [0, {size}), found more, or one outside")
        block = np.cumsum(steps[done:stop], dtype=np.int64, out=positions[done:stop])
        done, total = stop, summed + int(block[-1])
        ends *= m
        block += ends
        block += 8 * start * m + summed + m - 1
        summed = total
    if done != count or not unary[-1]:
        raise EditError(f"index code: expected {count} quotients in {len(unary)} bytes, found {done}")
    if positions[-1] >= size:
        raise EditError(f"index code: position {positions[-1]} lies outside [0, {size})")
    return positions


def _decode_steps(rest: PlaneReader, count: int, divisor: _Divisor) -> Integer[np.ndarray, " count"]:
    """Each remainder + 1 - m, in single bytes where they suffice."""
    steps: np.ndarray = np.zeros(count, np.uint8 if divisor.value <= 128 else np.int64)
    for bit in range(0, divisor.low - 7, 8):
        steps |= rest.take(count).astype(steps.dtype) << bit
    for bit in range(divisor.low // 8 * 8, divisor.low):
        steps |= rest.bits(count).astype(steps.dtype) << bit
    if divisor.ternary:
        digits = rest.bits(count)
        above = np.flatnonzero(digits.view(np.bool_))
        digits[above] += rest.bits(len(above))
        steps += digits.astype(steps.dtype) << divisor.low
    steps = steps.view(np.int8) if steps.dtype == np.uint8 else steps
    steps += steps.dtype.type(1 - divisor.value)
    return steps


def _summed(gaps: Integer[np.ndarray, " count"]) -> Iterator[Int64[np.ndarray, " block"]]:
    """The positions of gaps, a block at a time."""
    before = -1
    for start in range(0, len(gaps), 2 * _BLOCK):
        steps = gaps[start : start + 2 * _BLOCK].astype(np.int64) + 1  # each position itself counts too
        steps[0] += before
        block = np.cumsum(steps, out=steps)
        before = int(block[-1])
        yield block


def _bitmap_of(positions: Iterable[Int64[np.ndarray, " block"]], size: int) -> UInt8[np.ndarray, " bytes"]:
    """One bit for each position, up to the end of the last three; unpacked only a block at a time."""
    bitmap = np.zeros(-(-(size + -size % 3) // 8), np.uint8)
    start, carried = 0, np.zeros(0, np.bool_)  # what does not fill a byte yet, from a whole byte on
    for block in positions:
        flags = np.zeros(int(block[-1]) + 1 - start, np.bool_)
        flags[: len(carried)] = carried
        flags[block - start] = True
        whole = len(flags) // 8 * 8
        bitmap[start // 8 : (start + whole) // 8] = packed(flags[:whole])
        start, carried = start + whole, flags[whole:]
    if len(carried):
        bitmap[start // 8] = packed(carried)[0]
    return bitmap


def _encode_bitmap(bitmap: UInt8[np.ndarray, " bytes"], count: int, size: int) -> bytes:
    if 100 * count >= _BITMAP_FROM * size:
        return bitmap[: -(-size // 8)].tobytes()
    return _encode_triples(bitmap, -(-size // 3))


def _encode_triples(bitmap: UInt8[np.ndarray, " bytes"], triples: int) -> bytes:
    """Two planes with a bit for each three positions, then a bit for those that are not empty, and one for the rarest."""
    first, second, more, deep = [], [], [], []
    for start in range(0, triples, 8 * _BLOCK):  # whole bytes of the first two planes
        leaves = _LEAVES.take(three_bits.unpack(bitmap[3 * start // 8 :], min(8 * _BLOCK, triples - start)))
        first.append(pack(leaves >> 2 & 1))
        second.append(pack(leaves >> 3))
        inner = leaves.take(np.flatnonzero(leaves != 0))  # much faster than a mask
        more.append(inner >> 1 & 1)
        deep.append(inner.take(np.flatnonzero(inner >= _DEEP)) & 1)
    return b"".join([*first, *second, pack(np.concatenate(more)), pack(np.concatenate(deep))])


def _decode_triples(rest: PlaneReader, size: int) -> Iterator[tuple[int, UInt8[np.ndarray, " positions"]]]:
    """One flag for each position, up to the end of the last three, in blocks with the number of their first."""
    triples = -(-size // 3)
    rest.check_holds(2 * triples)
    first, second = rest.plane(triples), rest.plane(triples)
    more = BitStream(rest.plane(int(np.bitwise_count(first | second).sum(dtype=np.int64))))
    deep = BitStream(rest.take(rest.left))  # how many there are is known at its end
    for start in range(0, len(first), _BLOCK):
        leaves = unpack(first[start : start + _BLOCK]) << 2
        leaves |= unpack(second[start : start + _BLOCK]) << 3
        leaves = leaves[: triples - 8 * start]
        inner = np.flatnonzero(leaves != 0)
        longer = np.zeros(len(leaves), np.uint8)
        longer[inner] = more.take(len(inner))
        leaves |= longer << 1
        deepest = np.flatnonzero(leaves == _DEEP)
        leaves[deepest] += deep.take(len(deepest))
        flags = unpack(three_bits.pack(_TRIPLES.take(leaves)))  # (positions / 3,) -> (positions,)
        yield 24 * start, flags[: 3 * len(leaves)]
    deep.check_end()


def _bitmap(rest: PlaneReader, size: int) -> Iterator[tuple[int, UInt8[np.ndarray, " positions"]]]:
    plane = rest.plane(size)
    for start in range(0, len(plane), _BLOCK):
        yield 8 * start, unpack(plane[start : start + _BLOCK])


def _count(count: int, size: int) -> bytes:
    return count.to_bytes(_count_bytes(size), "little")


def _count_bytes(size: int) -> int:
    return -(-size.bit_length() // 8)
