"""Sets of parameter positions as bytes: every set of one size has exactly one code, close to the entropy of a random set.

Layout: one byte form. Form 0: the whole set as one code (`photopic.core.editfile.position_code`). Form 1, only where the length
of a row is given: the set by rows, for edits whose rows differ (dense ones, empty ones). A row's class is the bit length of its
number of positions. Classes come from the highest to the lowest: first which of the rows left are in the class, then the positions
in them as if these rows stood alone, each as such a code after its length in bytes. So each class is coded with its own density;
the lowest has all the rows that are left. Before them stand the number of positions and the highest and the lowest class.

Which form is used follows from the number of positions in each row: the one that costs less by the entropies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from photopic.core.editfile.position_code import decode_set, encode_set
from photopic.core.errors import EditError

LARGEST_SIZE = 1 << 48
_WHOLE, _BY_ROWS = 0, 1
_POWERS = np.left_shift(1, np.arange(49))


def encode(positions: Int64[np.ndarray, " count"], size: int, *, row: int | None = None) -> bytes:
    """Code a sorted set of positions; `decode` is the inverse.

    Args:
        positions: Strictly increasing positions in ``[0, size)``.
        size: The number of positions there are, at most 2^48.
        row: The length of a row, which divides ``size``; rows of different density then cost what they cost each. None for one
            density throughout.

    Returns:
        The code; the same bytes for the same set on every machine.

    Raises:
        EditError: If the positions are not strictly increasing or not below ``size``, or ``row`` does not divide it.

    Example:
        >>> decode(encode(np.array([2, 3, 11]), size=20), size=20)
        array([ 2,  3, 11])
    """
    _check_size(size, row)
    if len(positions) and (positions[0] < 0 or positions[-1] >= size or (np.diff(positions) <= 0).any()):
        raise EditError(f"positions must be strictly increasing in [0, {size}), found {_first_wrong(positions, size)}")
    counts = _row_counts(positions, size, row)
    if row is None or counts is None or not _rows_cost_less(counts, size, row):
        return bytes([_WHOLE]) + encode_set(positions, size)
    return bytes([_BY_ROWS]) + _encode_rows(positions, counts, size, row)


def decode(data: bytes | bytearray | memoryview, size: int, *, row: int | None = None) -> Int64[np.ndarray, " count"]:
    """The positions that `encode` wrote; everything is checked, and memory stays within a fixed multiple of ``len(data)``.

    Args:
        data: What `encode` returned.
        size: The same size as given there.
        row: The same length of a row as given there.

    Returns:
        Strictly increasing positions in ``[0, size)``.

    Raises:
        EditError: If the bytes are not what `encode` gives for some set; no second form of a set is accepted.

    Example:
        >>> decode(encode(np.array([0]), size=1), size=1)
        array([0])
    """
    _check_size(size, row)
    if not data:
        raise EditError("index code: expected at least 1 byte, found 0")
    if data[0] == _WHOLE:
        positions = decode_set(memoryview(data)[1:], size)
        counts = _row_counts(positions, size, row)
        if row is not None and counts is not None and _rows_cost_less(counts, size, row):
            raise EditError("index code: expected the form by rows, which is smaller here, found the whole set")
        return positions
    if data[0] != _BY_ROWS or row is None:
        forms = _WHOLE if row is None else f"{_WHOLE} or {_BY_ROWS}"
        raise EditError(f"index code: expected form {forms}, found {data[0]}")
    return _decode_rows(memoryview(data)[1:], size, row)


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


def _encode_rows(
    positions: Int64[np.ndarray, " count"], counts: Int64[np.ndarray, " rows"], size: int, row: int
) -> bytes:
    width = _width(size)
    classes = _classes(counts)
    low, high = int(classes.min()), int(classes.max())
    class_of_position = np.repeat(classes, counts)  # (rows,) -> (positions,)
    blocks, left = [], np.arange(len(counts))
    for each in range(high, low - 1, -1):
        chosen = classes[left] == each
        if each > low:
            blocks.append(encode_set(np.flatnonzero(chosen), len(left)))
        members, left = left[chosen], left[~chosen]  # numbers of rows
        if each and len(members):
            inside = positions[class_of_position == each]  # next: as if these rows stood alone
            inside -= np.repeat((members - np.arange(len(members))) * row, counts[members])
            blocks.append(encode_set(inside, len(members) * row))
    head = len(positions).to_bytes(width, "little") + bytes([high, low])
    return head + b"".join(len(block).to_bytes(width, "little") + block for block in blocks)


def _decode_rows(data: memoryview, size: int, row: int) -> Int64[np.ndarray, " count"]:
    width, rows = _width(size), size // row
    total = int.from_bytes(data[:width], "little")
    if len(data) < width + 2 or total > 8 * len(data) or not _worth_rows(total, rows):
        raise EditError(f"index code: {len(data)} bytes cannot hold {total} of {size} positions by rows")
    high, low = data[width], data[width + 1]
    blocks = _blocks(data[width + 2 :], width)
    if not low <= high <= row.bit_length():
        raise EditError(f"index code: expected classes between 0 and {row.bit_length()}, found {low} to {high}")
    counts, claimed, left, parts = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.arange(rows), []
    for each in range(high, low - 1, -1):
        chosen = decode_set(_next(blocks), len(left)) if each > low else np.arange(len(left))
        members, left = left[chosen], np.delete(left, chosen)
        claimed[members] = each
        if each and len(members):
            inside = decode_set(_next(blocks), len(members) * row)
            counts[members] = _counts(inside, len(members), row)
            parts.append((members, inside))
    classes = _classes(counts)
    right = bool((classes == claimed).all()) and classes.max() == high and classes.min() == low
    if not right or next(blocks, None) is not None or counts.sum() != total or not _rows_cost_less(counts, size, row):
        raise EditError("index code: the classes of the rows are not those of the positions in them")
    positions, starts = np.empty(total, np.int64), np.cumsum(counts) - counts
    for members, inside in parts:
        here = counts[members]
        places = np.repeat(starts[members] - (np.cumsum(here) - here), here) + np.arange(len(inside))
        positions[places] = inside + np.repeat((members - np.arange(len(members))) * row, here)
    return positions


def _blocks(data: memoryview, width: int) -> Iterator[memoryview]:
    """The sets after their lengths; a set that is cut off is an error here or in its own decoder."""
    while data:
        end = width + int.from_bytes(data[:width], "little")
        if len(data) < end:
            raise EditError(f"index code: expected a set of {end} bytes, found {len(data)}")
        yield data[width:end]
        data = data[end:]


def _next(blocks: Iterator[memoryview]) -> memoryview:
    try:
        return next(blocks)
    except StopIteration:
        raise EditError("index code: expected another set, found the end") from None


def _row_counts(
    positions: Int64[np.ndarray, " count"], size: int, row: int | None
) -> Int64[np.ndarray, " rows"] | None:
    """Positions in each row, or None where the form by rows is out of the question."""
    if row is None or not _worth_rows(len(positions), size // row):
        return None
    return _counts(positions, size // row, row)


def _worth_rows(count: int, rows: int) -> bool:
    """With fewer positions than half the rows the classes cost too much; this also bounds memory by the number of positions."""
    return 1 < rows <= 2 * count


def _counts(positions: Int64[np.ndarray, " count"], rows: int, row: int) -> Int64[np.ndarray, " rows"]:
    return np.diff(np.searchsorted(positions, np.arange(rows + 1) * row))


def _classes(counts: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """The bit length of each count."""
    return np.searchsorted(_POWERS, counts, side="right")


def _rows_cost_less(counts: Int64[np.ndarray, " rows"], size: int, row: int) -> bool:
    """Whether the form by rows is expected to be smaller by 2 % or more; a function of the counts alone, in integers."""
    classes = _classes(counts)
    low, high = int(classes.min()), int(classes.max())
    left, bits = len(counts), 8 * (_width(size) + 2)
    for each in range(high, low - 1, -1):
        chosen = classes == each
        members = int(chosen.sum())
        bits += _expected_bits(members, left) if each > low else 0
        bits += _expected_bits(int(counts[chosen].sum()), members * row)
        left -= members
    return 50 * bits < 49 * _expected_bits(int(counts.sum()), size)


def _expected_bits(count: int, size: int) -> int:
    """The bits of ``count`` of ``size`` positions with what stands before them: the entropy, or one for each position.

    With p = count / size, log2 e = 92 / 64 and -(1 - p) ln(1 - p) = p - p^2 / 2 - p^3 / 6 - ...
    """
    head = 16 * _width(size)
    if 5 * count >= 2 * size:
        return head + size
    entropy = count * (_log2(size) - _log2(count)) + 92 * count - 92 * count**2 // (2 * size) if count else 0
    return head + min(size, entropy // 64)


def _log2(value: int) -> int:
    """floor(64 log2 value)."""
    return int((value**64).bit_length() - 1)


def _width(size: int) -> int:
    """The bytes that hold any number up to ``size``."""
    return -(-size.bit_length() // 8)


def _check_size(size: int, row: int | None) -> None:
    if not 0 <= size <= LARGEST_SIZE:
        raise EditError(f"index code: expected a size between 0 and 2^48, found {size}")
    if row is not None and (row < 1 or size % row):
        raise EditError(f"index code: expected the length of a row, a divisor of {size}, found {row}")


def _first_wrong(positions: Int64[np.ndarray, " count"], size: int) -> str:
    outside = (positions < 0) | (positions >= size)  # (count,)
    if outside.any():
        return f"{positions[outside.argmax()]}"
    at = int((np.diff(positions) <= 0).argmax())
    return f"{positions[at]} followed by {positions[at + 1]}"
