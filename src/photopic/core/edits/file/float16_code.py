"""Numbers of 16 bits as bytes, without loss: weights share few exponents, so these are coded and the other bits kept.

Layout: the low 8 bits of sign and mantissa of every number, then what is left of them (3 bits a number for float16, none for
bfloat16) as one plane; then how many exponents occur (one less, 1 byte), these from the most to the least frequent, and, if there
are several, the unary code of each number's place in that list, as its length in bits and a coded set
(`photopic.core.edits.file.position_code`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8, UInt16

from photopic.core.edits.file.position_code import decode_set, encode_set
from photopic.core.errors import EditError

MANTISSA = {"F16": 10, "BF16": 7}  # bits


def encode_halves(raw: bytes, kind: str) -> bytes:
    """Code the bytes of float16 or bfloat16 numbers; `decode_halves` is the inverse.

    Args:
        raw: Two bytes a number, the lower first.
        kind: ``F16`` or ``BF16``.

    Returns:
        The code; the same for the same numbers on every machine.

    Example:
        >>> decode_halves(encode_halves(bytes([0, 60, 0, 56]), "F16"), 2, "F16")
        b'\\x00<\\x008'
    """
    bits, mantissa = np.frombuffer(raw, "<u2"), MANTISSA[kind]
    exponents = ((bits >> mantissa) & _largest(kind)).astype(np.uint8)
    rest = (bits & ((1 << mantissa) - 1)) | (bits >> 15 << mantissa)  # mantissa, then the sign above it
    planes = (rest & 255).astype(np.uint8).tobytes() + _packed(rest >> 8, mantissa - 7)
    if not len(bits):
        return planes
    counts = np.bincount(exponents, minlength=256)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    places = np.zeros(256, np.int64)
    places[order] = np.arange(len(order))
    ends = np.cumsum(places[exponents] + 1) - 1  # each number's unary code ends there
    table = bytes([len(order) - 1]) + order.astype(np.uint8).tobytes()
    if len(order) == 1:
        return planes + table
    size = int(ends[-1]) + 1
    return planes + table + size.to_bytes(_size_bytes(len(bits), len(order)), "little") + encode_set(ends, size)


def decode_halves(code: bytes, count: int, kind: str) -> bytes:
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
    exponents = _exponents(code[count + extra :], count)
    if exponents.max() > _largest(kind):
        raise EditError(f"expected exponents up to {_largest(kind)}, found {exponents.max()}")
    mantissa = MANTISSA[kind]
    rest = low.astype(np.uint16) | (_unpacked(high, count, mantissa - 7) << 8).astype(np.uint16)
    sign, fraction = rest >> mantissa, rest & ((1 << mantissa) - 1)
    raw = (sign << 15 | exponents.astype(np.uint16) << mantissa | fraction).astype("<u2").tobytes()
    if encode_halves(raw, kind) != code:  # another order of the exponents, or bits where none belong
        raise EditError("expected the one code of its numbers, found another")
    return raw


def _exponents(code: bytes, count: int) -> UInt8[np.ndarray, " count"]:
    table = np.frombuffer(code[1 : code[0] + 2], np.uint8) if code else np.zeros(0, np.uint8)
    if not len(table) or len(table) != code[0] + 1:
        raise EditError("expected a table of exponents, found a code that is cut off")
    at = 1 + len(table)
    if len(table) == 1:
        return np.repeat(table, count)
    rest = at + _size_bytes(count, len(table))
    size = int.from_bytes(code[at:rest], "little")
    if not count <= size <= count * len(table):
        raise EditError(f"expected a unary code of {count} to {count * len(table)} bits, found {size}")
    ends = decode_set(code[rest:], size)
    places = np.diff(ends, prepend=-1) - 1
    if len(ends) != count or ends[-1] != size - 1 or places.max() >= len(table):
        raise EditError(f"expected {count} places in a table of {len(table)}, found others")
    return table[places]


def _size_bytes(count: int, places: int) -> int:
    """What the length of the unary code takes, which is at most ``count * places``."""
    return -(-(count * places).bit_length() // 8)


def _largest(kind: str) -> int:
    return (1 << (15 - MANTISSA[kind])) - 1


def _packed(values: UInt16[np.ndarray, " count"], bits: int) -> bytes:
    """The lowest bits of each value one after the other, lowest first."""
    planes = (values[:, None] >> np.arange(bits, dtype=np.uint16)) & 1
    return np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()


def _unpacked(packed: UInt8[np.ndarray, " bytes"], count: int, bits: int) -> UInt16[np.ndarray, " count"]:
    planes = np.unpackbits(packed, bitorder="little", count=count * bits).reshape(count, bits)
    return (planes.astype(np.uint16) << np.arange(bits, dtype=np.uint16)).sum(1, dtype=np.uint16)
