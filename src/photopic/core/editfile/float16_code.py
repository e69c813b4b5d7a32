"""Numbers of 16 bits as bytes, without loss: weights share few exponents, so these are coded and the other bits kept.

Layout: the low 8 bits of sign and mantissa of every number, then what is left of them (3 bits a number for float16, none for
bfloat16) as one plane; then how many exponents occur (one less, 1 byte), these from the most to the least frequent, and, if there
are several, the unary code of each number's place in that list, as its length in bits and a coded set
(`photopic.core.editfile.position_code`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt8

from photopic.core.editfile import three_bits
from photopic.core.editfile.container import Data
from photopic.core.editfile.position_code import decode_blocks, encode_gaps
from photopic.core.errors import EditError

MANTISSA = {"F16": 10, "BF16": 7}  # bits
_BLOCK = 1 << 17  # numbers at a time, so that what is made of them stays in the cache


def encode_halves(raw: Data, kind: str) -> bytes:
    """Code the bytes of float16 or bfloat16 numbers; `decode_halves` is the inverse.

    Args:
        raw: Two bytes a number, the lower first.
        kind: ``F16`` or ``BF16``.

    Returns:
        The code; the same for the same numbers on every machine.

    Example:
        >>> decode_halves(encode_halves(bytes([0, 60, 0, 56]), "F16"), 2, "F16")
        bytearray(b'\\x00<\\x008')
    """
    halves = np.frombuffer(raw, np.uint8).reshape(-1, 2)  # (numbers, low and high byte)
    count = len(halves)
    exponents, low, high = np.empty(count, np.uint8), np.empty(count, np.uint8), []
    for at in _blocks(count):
        exponents[at], low[at], above = _taken_apart(halves[at], kind)
        high.append(three_bits.pack(above).tobytes() if kind == "F16" else b"")
    planes = low.tobytes() + b"".join(high)
    if not count:
        return planes
    counts = _counts(exponents)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    table = bytes([len(order) - 1]) + order.astype(np.uint8).tobytes()
    if len(order) == 1:
        return planes + table
    places = np.zeros(256, np.uint8)
    places[order] = np.arange(len(order))
    size = int((counts[order] * np.arange(1, len(order) + 1)).sum())  # a place p takes p + 1 bits
    unary = encode_gaps(places.take(exponents), size)  # of each code the last bit is set, so p bits are skipped
    return planes + table + size.to_bytes(_size_bytes(count, len(order)), "little") + unary


def decode_halves(code: Data, count: int, kind: str) -> bytearray:
    """The bytes that `encode_halves` coded; memory stays within a fixed multiple of ``len(code)``.

    Args:
        code: What it returned.
        count: How many numbers.
        kind: The same as given there.

    Raises:
        EditError: If no numbers have this code.
    """
    extra = -(-count * (MANTISSA[kind] - 7) // 8)
    if len(code) < count + extra or not count:
        raise EditError(f"expected the code of {count} numbers, found {len(code)} bytes")
    low, high = np.frombuffer(code, np.uint8, count), np.frombuffer(code, np.uint8, extra, count)
    if extra and high[-1] >> (3 * count - 1) % 8 + 1:
        raise EditError("expected zeros in the unused bits of a plane, found others")
    exponents = _exponents(memoryview(code)[count + extra :], count, _largest(kind))
    halves = np.empty((count, 2), np.uint8)
    for at in _blocks(count):
        above = three_bits.unpack(high[at.start * 3 // 8 :], len(low[at])) if kind == "F16" else low[at]
        halves[at, 0], halves[at, 1] = _put_together(exponents[at], low[at], above, kind)
    return bytearray(halves.data)


def _exponents(code: memoryview, count: int, largest: int) -> UInt8[np.ndarray, " count"]:
    """Each number's exponent, of the one code that gives them: the table is by frequency, and each entry is used."""
    table = np.frombuffer(code[1 : code[0] + 2], np.uint8) if code else np.zeros(0, np.uint8)
    if not len(table) or len(table) != code[0] + 1:
        raise EditError("expected a table of exponents, found a code that is cut off")
    if table.max() > largest:
        raise EditError(f"expected exponents up to {largest}, found {table.max()}")
    at = 1 + len(table)
    if len(table) == 1:
        if len(code) > at:
            raise EditError(f"expected no code after the only exponent, found {len(code) - at} bytes")
        return np.repeat(table, count)
    rest = at + _size_bytes(count, len(table))
    size = int.from_bytes(code[at:rest], "little")
    if not count <= size <= count * len(table):
        raise EditError(f"expected a unary code of {count} to {count * len(table)} bits, found {size}")
    by_length = np.concatenate(
        [table[:1], table]
    )  # of a unary code, which is one longer than its place; none has length 0
    exponents, done, end = np.empty(count, np.uint8), 0, -1
    wrong = EditError(f"expected {count} places in a table of {len(table)}, found others")
    for start, ends in decode_blocks(code[rest:], size):
        if not len(ends):
            continue
        lengths = np.empty_like(ends)
        lengths[0] = start + int(ends[0]) - end
        np.subtract(ends[1:], ends[:-1], out=lengths[1:])
        if done + len(ends) > count:
            raise wrong
        try:
            exponents[done : done + len(ends)] = by_length.take(lengths)
        except IndexError:  # a code longer than the table has places
            raise wrong from None
        done, end = done + len(ends), start + int(ends[-1])
    if done != count or end != size - 1:
        raise wrong
    if not _is_by_frequency(table, _counts(exponents)):
        raise EditError("expected the exponents from the most to the least frequent, found another order")
    return exponents


def _is_by_frequency(table: UInt8[np.ndarray, " places"], counts: Int64[np.ndarray, " 256"]) -> bool:
    """Whether a table is the one that the encoder makes: by falling count, then by rising exponent, each once and used."""
    ranks = list(zip((-counts[table]).tolist(), table.tolist(), strict=True))
    return ranks == sorted(set(ranks)) and bool(counts[table].all())


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _counts(exponents: UInt8[np.ndarray, " count"]) -> Int64[np.ndarray, " 256"]:
    """How often each occurs; two at a time, as one number of 16 bits."""
    pairs = np.bincount(exponents[: len(exponents) // 2 * 2].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    if len(exponents) % 2:
        counts[exponents[-1]] += 1
    return counts


def _size_bytes(count: int, places: int) -> int:
    """What the length of the unary code takes, which is at most ``count * places``."""
    return -(-(count * places).bit_length() // 8)


def _largest(kind: str) -> int:
    return (1 << (15 - MANTISSA[kind])) - 1


def _taken_apart(halves: UInt8[np.ndarray, "numbers 2"], kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exponent, low 8 bits of sign and mantissa, and what is left of these; bfloat16 has no more, so its low bits come twice."""
    low, high = halves[:, 0].copy(), halves[:, 1].copy()
    if kind == "F16":  # s eeeee mm, mmmmmmmm: sign and mantissa have 11 bits
        return high >> 2 & 31, low, high & 3 | high >> 5 & 4
    rest = low & 127 | high & 128  # s eeeeeee, e mmmmmmm
    return high << 1 | low >> 7, rest, rest


def _put_together(
    exponents: UInt8[np.ndarray, " numbers"], low: np.ndarray, above: np.ndarray, kind: str
) -> tuple[UInt8[np.ndarray, " numbers"], UInt8[np.ndarray, " numbers"]]:
    """Low and high byte of each number; the inverse of `_taken_apart`."""
    if kind == "F16":
        return low, exponents << 2 | above & 3 | (above & 4) << 5
    return low & 127 | exponents << 7, low & 128 | exponents >> 1
