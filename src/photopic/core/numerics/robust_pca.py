"""A symmetric matrix as low rank plus sparse: robust PCA by ADMM, with a certificate that says when nothing of low rank is left.

    minimise ||L||_* + weight ||S||_1   subject to   M = L + S       (principal component pursuit, arXiv:0912.3599)

All iterates of a symmetric matrix are symmetric, so singular values come from ``eigh`` in the place of an SVD. L need not be
positive semidefinite where M is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from photopic.core.errors import DataError

Penalty = Literal["textbook", "released"]
MOST = 10_000  # iterations
PRIMAL, DUAL = 1e-7, 1e-6  # relative residuals to stop at
RELAXED = 1.6  # over-relaxation with the textbook penalty: a third fewer iterations to the same optimum (Boyd et al. 2011, 3.4.3)


@dataclass(frozen=True, eq=False)
class RobustPCA:
    """Both parts, and how the iteration ended.

    Attributes:
        low_rank: L, symmetric.
        sparse: S; ``low_rank + sparse`` is the matrix up to the primal residual.
        dual: The multiplier Y; at an optimum ``||Y||_2 <= 1`` and ``max|Y| <= weight``.
        values: Eigenvalues of L by falling magnitude; after ``rank`` of them all are 0.
        vectors: Their eigenvectors as rows.
        rank: Of L: values above ``d * eps`` of the largest.
        iterations: Done.
        converged: Whether the stopping rule was met.
        objective: ``||L||_* + weight ||S||_1``.
    """

    low_rank: Float[np.ndarray, "d d"]
    sparse: Float[np.ndarray, "d d"]
    dual: Float[np.ndarray, "d d"]
    values: Float[np.ndarray, " d"]
    vectors: Float[np.ndarray, "d d"]
    rank: int
    iterations: int
    converged: bool
    objective: float


def smallest_weight(matrix: Float[np.ndarray, "d d"]) -> float:
    """The weight of the sparse part up to which L = 0 is an optimum: 1 / ||sign(M)||_2, exactly so for a matrix without zeros.

    Example:
        >>> smallest_weight(np.ones((4, 4)))
        0.25
    """
    return 1 / float(np.linalg.norm(np.sign(matrix), 2))


def robust_pca(
    matrix: Float[np.ndarray, "rows columns"],
    weight: float | None = None,
    *,
    penalty: Penalty = "textbook",
    dual_test: bool = True,
    most: int = MOST,
) -> RobustPCA:
    """Split a symmetric matrix into low rank and sparse.

    Args:
        matrix: Symmetric, finite, not 0.
        weight: Of the sparse part; None: 1 / sqrt(d).
        penalty: mu of the augmented Lagrangian: ``textbook`` is d^2 / (4 sum|M|); ``released`` is what the code of LowRankGAN
            computes, d^2 / (4 times the largest column sum), tens of times larger.
        dual_test: Whether to go on until the multiplier has settled too. Without, and with the released penalty, this is the
            published iteration, which stops before its optimum: its rank says partly where it stopped.
        most: Iterations at most.

    Raises:
        DataError: If the matrix is not square, symmetric and finite, or is 0.

    Example:
        >>> spiked = np.ones((20, 20)); spiked[3, 8] = spiked[8, 3] = 9.0
        >>> found = robust_pca(spiked)
        >>> found.rank, [each.tolist() for each in np.nonzero(np.abs(found.sparse) > 0.1)]
        (1, [[3, 8], [8, 3]])
    """
    given = np.asarray(matrix, np.float64)
    size = np.linalg.norm(given) if given.ndim == 2 else 0.0
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not np.isfinite(size):
        raise DataError(f"robust PCA: expected a square matrix of finite numbers, found shape {given.shape}")
    if size == 0 or np.abs(given - given.T).max() > 1e-9 * np.abs(given).max():
        raise DataError(f"robust PCA: expected a symmetric matrix, found {'0' if size == 0 else 'one that is not'}")
    d, given = len(given), (given + given.T) / 2
    share = 1 / np.sqrt(d) if weight is None else weight
    column_sums = np.abs(given).sum(0)
    mu = d * d / (4 * (column_sums.sum() if penalty == "textbook" else column_sums.max()))
    relaxed = RELAXED if penalty == "textbook" else 1.0
    sparse, dual = np.zeros_like(given), np.zeros_like(given)
    iteration = 0
    while iteration < most:
        iteration += 1
        values, vectors = np.linalg.eigh(given - sparse - dual / mu)
        shrunk = _shrink(values, 1 / mu)
        kept = shrunk != 0
        low_rank = (vectors[:, kept] * shrunk[kept]) @ vectors[:, kept].T
        ahead = relaxed * low_rank + (1 - relaxed) * (given - sparse)
        before, sparse = sparse, _shrink(given - ahead - dual / mu, share / mu)
        dual = dual + mu * (ahead + sparse - given)
        is_primal = np.linalg.norm(low_rank + sparse - given) <= PRIMAL * size
        is_dual = mu * np.linalg.norm(sparse - before) <= DUAL * np.linalg.norm(dual)
        if is_primal and (is_dual or not dual_test):
            break
    order = np.argsort(-np.abs(shrunk), kind="stable")
    rank = int((np.abs(shrunk) > np.abs(shrunk).max() * d * np.finfo(float).eps).sum())
    objective = float(np.abs(shrunk).sum() + share * np.abs(sparse).sum())
    converged = bool(is_primal and (is_dual or not dual_test))
    # the sign of the multiplier as in the Lagrangian ||L||_* + weight ||S||_1 + <-Y, L + S - M>
    return RobustPCA(low_rank, sparse, -dual, shrunk[order], vectors.T[order], rank, iteration, converged, objective)


def _shrink(values: Float[np.ndarray, "..."], by: float) -> Float[np.ndarray, "..."]:
    """Soft threshold: sign(a) max(|a| - by, 0)."""
    return np.sign(values) * np.maximum(np.abs(values) - by, 0)
