"""Singular values of a matrix that arrives some columns at a time, and what counts as zero among them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

STRIP = 8192  # columns taken in at a time
PANEL = 256  # rows of the Gram matrix at a time; what lies below the diagonal is not computed


class Spectrum:
    """Singular values of a matrix of ``rows`` x ``columns``, in memory that does not grow with the columns.

    A matrix that is not wide is kept and decomposed in float64. Of a wide one only the Gram matrix of its rows is kept, in
    float64: singular values below about 1e-8 of the largest drown in its rounding. With ``exact`` the triangle of a QR
    decomposition is kept instead, which has them to 1e-15 and takes several times as long.

    Args:
        rows: Of the matrix.
        columns: Of the whole matrix.
        exact: Whether values below 1e-8 of the largest matter.

    Example:
        >>> spectrum = Spectrum(2, 3)
        >>> spectrum.add(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        >>> spectrum.add(torch.tensor([[0.0], [3.0]]))
        >>> spectrum.singular_values()
        tensor([5., 3.], dtype=torch.float64)
    """

    def __init__(self, rows: int, columns: int, *, exact: bool = False):
        self._shape = (rows, columns)
        self._exact = exact
        self._kept: list[Tensor] = []

    @property
    def is_wide(self) -> bool:
        """Whether it has more columns than rows."""
        return self._shape[1] > self._shape[0]

    def add(self, block: Float[Tensor, "rows columns"]) -> None:
        """Take in the next columns."""
        if not self.is_wide:
            self._kept.append(block.double())
            return
        for strip in block.split(STRIP, dim=1):
            self._fold(strip.double())

    def singular_values(self) -> Float64[Tensor, "values"]:
        """All of them, largest first; min(rows, columns) values."""
        if not self.is_wide:
            return torch.linalg.svdvals(torch.cat(self._kept, dim=1))
        (kept,) = self._kept
        if self._exact:
            return torch.linalg.svdvals(kept)
        upper = kept.triu()
        squares = torch.linalg.eigvalsh(upper + upper.T - torch.diag(upper.diagonal()))
        return squares.clamp(min=0).sqrt().flip(0)

    def _fold(self, strip: Float64[Tensor, "rows columns"]) -> None:
        rows = len(strip)
        if self._exact:
            stacked = torch.cat([*self._kept, strip.T])  # (kept rows + columns, rows)
            self._kept = [torch.linalg.qr(stacked, mode="r").R]
            return
        if not self._kept:
            self._kept = [strip.new_zeros(rows, rows)]
        for top in range(0, rows, PANEL):
            panel = slice(top, top + PANEL)
            self._kept[0][panel, top:] += strip[panel] @ strip[top:].T


def numerical_rank(values: Float[Tensor, "values"], threshold: float) -> int:
    """How many singular values exceed ``threshold`` times the largest; 0 for a matrix of zeros.

    Example:
        >>> numerical_rank(torch.tensor([2.0, 0.1, 0.01]), 0.01)
        2
    """
    return int((values > threshold * values.max()).sum()) if values.numel() else 0
