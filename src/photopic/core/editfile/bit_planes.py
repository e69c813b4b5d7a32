"""Bits of a code as planes: packed from the lowest to the highest of each byte, taken from the front, refused beyond their end."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from photopic.core.errors import EditError


class PlaneReader:
    """Takes planes from the front of a code."""

    def __init__(self, data: UInt8[np.ndarray, " bytes"]) -> None:
        self._data = data

    @property
    def left(self) -> int:
        """The bytes not yet taken."""
        return len(self._data)

    def take(self, count: int) -> UInt8[np.ndarray, " bytes"]:
        """The next bytes, as they are."""
        self.check_holds(8 * count)
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def plane(self, count: int) -> UInt8[np.ndarray, " bytes"]:
        """The next plane of so many zeros and ones, packed."""
        plane = self.take(-(-count // 8))
        _check_padding(plane, count)
        return plane

    def bits(self, count: int) -> UInt8[np.ndarray, " bits"]:
        """The next plane of zeros and ones."""
        return unpack(self.plane(count))[:count]

    def check_holds(self, bits: int) -> None:
        """Refuse what is too short before anything is allocated for it."""
        if bits > 8 * self.left:
            raise EditError(f"index code: expected at least {-(-bits // 8)} more bytes, found {self.left}")

    def check_end(self) -> None:
        """Refuse bytes after the end."""
        if self.left:
            raise EditError(f"index code: expected no more bytes, found {self.left}")


class BitStream:
    """Reads the bits of one plane a few at a time."""

    def __init__(self, plane: UInt8[np.ndarray, " bytes"]) -> None:
        self._plane, self._at = plane, 0

    def take(self, count: int) -> UInt8[np.ndarray, " bits"]:
        """The next bits."""
        first, self._at = self._at, self._at + count
        if self._at > 8 * len(self._plane):
            raise EditError(
                f"index code: expected at least {-(-self._at // 8)} bytes in a plane, found {len(self._plane)}"
            )
        return unpack(self._plane[first // 8 : -(-self._at // 8)])[first % 8 : first % 8 + count]

    def check_end(self) -> None:
        """Refuse what comes after the bits that were read."""
        _check_padding(self._plane, self._at)
        if len(self._plane) > -(-self._at // 8):
            raise EditError(f"index code: expected no more bytes, found {len(self._plane) - -(-self._at // 8)}")


def _check_padding(plane: UInt8[np.ndarray, " bytes"], count: int) -> None:
    if count % 8 and plane[count // 8] >> count % 8:
        raise EditError("index code: the unused bits at the end of a plane are not zero")


def pack(bits: np.ndarray) -> bytes:
    """Zeros and ones as bytes."""
    return packed(bits).tobytes()


def packed(bits: np.ndarray) -> UInt8[np.ndarray, " bytes"]:
    """The same as an array."""
    return np.packbits(bits, bitorder="little")


def unpack(data: UInt8[np.ndarray, " bytes"]) -> UInt8[np.ndarray, " bits"]:
    """The zeros and ones of bytes."""
    return np.unpackbits(data, bitorder="little")
