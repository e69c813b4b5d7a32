"""The lasso from a covariance: all targets at once, each along a whole path of lambda, with an exact certificate.

    min over beta   v - 2 r'beta + beta'S beta + lambda ||beta||_1

S is the second moment of the predictors, r that of predictors and target, v the target's own; no sample is needed. On a
working set, warm started along the path, a sweep of coordinate descent finds the signs and Newton steps go to the minimum
with these, on one Cholesky factor that follows the support along the path; every solution is then checked on all predictors
and counts as done when its duality gap is small enough. S is read, never copied per target: a target that is itself a
predictor skips its own column. Compiled with numba; threads share the targets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import local
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps, finished

TOLERANCE = 1e-6
FACTS = 5  # error, l1, gap, violation, sweeps
TILE = 256  # side of the parts that S is checked by
BLOCK = 16  # targets a thread solves before it reports


@dataclass(frozen=True, eq=False)
class LassoPath:
    """Sparse coefficients of every target at every lambda, each with its certificate.

    Attributes:
        lambdas: From large to small.
        targets: Which targets, as the caller numbers them.
        predictors: Number of predictors.
        starts: Where the coefficients of (target, lambda) begin in ``members``; the last entry is their number.
        members: Predictors with a non-zero coefficient.
        values: Their coefficients.
        errors: v - 2 r'beta + beta'S beta, the mean square of the residual.
        norms: ||beta||_1.
        gaps: Duality gap: the objective is at most this far above the least one.
        violations: Largest violation of the optimality conditions: |2 g_j - lambda sign(beta_j)| where beta_j is not zero,
            |2 g_j| - lambda elsewhere, with g = r - S beta.
        converged: Whether the gap that was asked for was reached.
    """

    lambdas: Float[np.ndarray, "lambdas"]
    targets: Int[np.ndarray, "targets"]
    predictors: int
    starts: Int[np.ndarray, "entries"]
    members: Int[np.ndarray, "coefficients"]
    values: Float[np.ndarray, "coefficients"]
    errors: Float[np.ndarray, "targets lambdas"]
    norms: Float[np.ndarray, "targets lambdas"]
    gaps: Float[np.ndarray, "targets lambdas"]
    violations: Float[np.ndarray, "targets lambdas"]
    converged: bool

    @property
    def supports(self) -> Int[np.ndarray, "targets lambdas"]:
        """Number of non-zero coefficients."""
        return np.diff(self.starts).reshape(len(self.targets), len(self.lambdas))

    def coefficients(self, step: int) -> csr_array:
        """The coefficients at one lambda: one row a target, one column a predictor."""
        rows = np.arange(len(self.targets)) * len(self.lambdas) + range(len(self.lambdas))[step]
        kept = np.concatenate([np.arange(self.starts[row], self.starts[row + 1]) for row in rows])
        ends = np.concatenate([[0], np.cumsum(self.supports[:, step])])
        return csr_array((self.values[kept], self.members[kept], ends), shape=(len(rows), self.predictors))

    def of(self, row: int, step: int) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        """Predictors and coefficients of one row of ``targets`` at one lambda."""
        at = row * len(self.lambdas) + range(len(self.lambdas))[step]
        part = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return self.members[part], self.values[part]


def lambda_grid(largest: float, *, count: int = 20, smallest: float = 1e-2) -> Float[np.ndarray, "count"]:
    """Lambdas in equal ratios from ``largest`` (where 2 max |r_j| gives beta = 0) to ``smallest`` times it.

    Raises:
        DataError: If ``largest`` is not positive, ``smallest`` is not between 0 and 1, or there is no lambda.

    Example:
        >>> lambda_grid(2.0, count=3, smallest=0.25).tolist()
        [2.0, 1.0, 0.5]
    """
    if not largest > 0 or not 0 < smallest < 1 or count < 1:
        raise DataError(
            "a path of lambda: expected a first lambda above 0, a share between 0 and 1 and at least one step, "
            f"found {largest}, {smallest} and {count}"
        )
    return largest * np.geomspace(1.0, smallest, count) if count > 1 else np.array([float(largest)])


def lasso_path(
    second: Float[np.ndarray, "p p"],
    lambdas: Sequence[float] | Float[np.ndarray, "lambdas"],
    *,
    cross: Float[np.ndarray, "q columns"] | None = None,
    powers: Float[np.ndarray, "q"] | None = None,
    targets: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    threads: int | None = None,
) -> LassoPath:
    """Solve every target along the whole path.

    Args:
        second: S, symmetric and positive semidefinite; it may be singular. Read only.
        lambdas: Positive; sorted from large to small here.
        cross: r of each target, one row each; None means that the predictors are the targets, each without itself.
        powers: v of each target, with ``cross``.
        targets: Solve only these rows; None means all.
        tolerance: Duality gap over v at which a solution is done; at least 1e-13.
        threads: None means one for every core this process may use.

    Returns:
        Coefficients, errors and certificates.

    Raises:
        DataError: If a matrix is not finite, not symmetric, does not fit, or a lambda is not positive.

    Example:
        >>> found = lasso_path(np.array([[1.0, 0.9], [0.9, 1.0]]), [0.2])
        >>> found.coefficients(0).toarray().round(3).tolist()
        [[0.0, 0.8], [0.8, 0.0]]
    """
    return finished(solving(second, lambdas, cross, powers, targets=targets, tolerance=tolerance, threads=threads))


def solving(
    second: Float[np.ndarray, "p p"],
    lambdas: Sequence[float] | Float[np.ndarray, "lambdas"],
    cross: Float[np.ndarray, "q columns"] | None = None,
    powers: Float[np.ndarray, "q"] | None = None,
    *,
    targets: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    threads: int | None = None,
) -> Steps[LassoPath]:
    """``lasso_path`` with an event for every few targets.

    Example:
        >>> [event.done for event in solving(np.eye(2), [0.1])]
        [0, 2]
    """
    path = np.sort(np.asarray(lambdas, np.float64))[::-1].copy()
    if cross is None:
        cross, powers = second, np.diagonal(second)
    elif powers is None:
        raise DataError("cross moments were given without the targets' own: expected powers, found None")
    rows = np.arange(len(cross)) if targets is None else np.asarray(targets, np.int64)
    _check(second, path, cross, powers, rows, tolerance)
    solver = _Solver(np.ascontiguousarray(second), path, cross, powers, tolerance, _count(threads, len(rows)))
    yield Event("solving", 0, len(rows))
    results: list[Any] = [None] * len(rows)
    for done, _ in enumerate(solver.solve(rows, results), 1):
        yield Event("solving", min(done * BLOCK, len(rows)), len(rows))
    return _collect(path, rows, len(second), results, powers, tolerance)


class _Solver:
    """Threads that take blocks of targets, each with a workspace of its own."""

    def __init__(self, second: Any, lambdas: Any, cross: Any, powers: Any, tolerance: float, threads: int):
        self.second, self.lambdas, self.cross, self.powers = second, lambdas, cross, powers
        self.tolerance, self.threads = tolerance, threads
        self.within = cross is second or np.shares_memory(cross, second)
        # Two square buffers a thread: together no more than twice S. A target that needs more room is solved alone.
        self.room = min(len(second), math.isqrt(len(second) ** 2 // threads) + 1)
        self.own = local()

    def solve(self, rows: Any, results: list[Any]) -> Iterator[None]:
        """Fill ``results``, one event a block."""
        if self.threads == 1:
            for start in range(0, len(rows), BLOCK):
                self._block(rows, results, start)
                yield
        else:
            yield from self._in_threads(rows, results)
        again = [index for index, result in enumerate(results) if result is None]
        if again:
            self.own, self.room = local(), len(self.second)
            for index in again:
                results[index] = self._one(int(rows[index]))

    def _in_threads(self, rows: Any, results: list[Any]) -> Iterator[None]:
        pool = ThreadPoolExecutor(self.threads)
        try:
            pending = {pool.submit(self._block, rows, results, start) for start in range(0, len(rows), BLOCK)}
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for each in done:
                    each.result()
                    yield
        finally:
            pool.shutdown(cancel_futures=True)

    def _block(self, rows: Any, results: list[Any], start: int) -> None:
        for index in range(start, min(start + BLOCK, len(rows))):
            results[index] = self._one(int(rows[index]))

    def _one(self, row: int) -> tuple[Any, Any, Any, Any] | None:
        """Counts, members, values and facts of one target; None where its working set outgrew the room."""
        from photopic.core.numerics.lasso_kernel import solve_path  # numba takes a second to import

        if not hasattr(self.own, "space"):
            self.own.space = _workspace(len(self.second), self.room)
        steps, space = len(self.lambdas), self.own.space
        counts, facts = np.zeros(steps, np.int64), np.empty((steps, FACTS))
        members, values = np.empty(steps * self.room, np.int32), np.empty(steps * self.room)
        power = float(self.powers[row])
        cross = np.ascontiguousarray(self.cross[row], np.float64)
        skip = row if self.within else -1
        written = solve_path(
            self.second,
            cross,
            power,
            skip,
            self.lambdas,
            self.tolerance * power,
            *space,
            counts,
            members,
            values,
            facts,
        )
        return None if written < 0 else (counts, members[:written].copy(), values[:written].copy(), facts)


def _workspace(p: int, room: int) -> tuple[Any, ...]:
    square, number, index = (room, room), np.float64, np.int64
    return (
        np.empty(p, number),  # g
        np.empty(square, number),  # gram
        np.empty((room + 1, room), number),  # matrix
        np.empty(room, index),  # working
        np.empty(room, number),  # values
        np.empty(room, number),  # h
        np.empty(room, index),  # active
        np.empty(room, index),  # order
        np.empty(room, number),  # step
        np.empty(room, number),  # start
        np.full(p, -1, index),  # where
        np.empty(p, number),  # before
    )


def _collect(
    lambdas: Any, rows: Any, predictors: int, results: Sequence[Any], powers: Any, tolerance: float
) -> LassoPath:
    counts = np.concatenate([each[0] for each in results]) if results else np.zeros(0, np.int64)
    facts = np.stack([each[3] for each in results]) if results else np.zeros((0, len(lambdas), FACTS))
    starts = np.concatenate([[0], np.cumsum(counts)])
    members, values = np.empty(starts[-1], np.int32), np.empty(starts[-1])
    for index, each in enumerate(results):
        at = slice(starts[index * len(lambdas)], starts[(index + 1) * len(lambdas)])
        members[at], values[at] = each[1], each[2]
    error, norm, gap, violation, _ = np.moveaxis(facts, 2, 0).copy()
    done = bool((gap <= tolerance * np.asarray(powers)[rows][:, None]).all())
    return LassoPath(lambdas, rows, predictors, starts, members, values, error, norm, gap, violation, done)


def _count(threads: int | None, targets: int) -> int:
    if threads is not None and threads < 1:
        raise DataError(f"threads: expected at least 1, found {threads}")
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(threads, -(-targets // BLOCK)))


def _check(second: Any, lambdas: Any, cross: Any, powers: Any, rows: Any, tolerance: float) -> None:
    p = len(second)
    if second.dtype != np.float64:
        raise DataError(f"second moment: expected float64, found {second.dtype}; small lambdas need the digits")
    if second.shape != (p, p) or cross.shape[1] != p or len(powers) != len(cross):
        raise DataError(
            f"second moments: expected (p, p), cross (q, p) and powers (q,), found {second.shape}, {cross.shape}, "
            f"{powers.shape}"
        )
    if not len(lambdas) or not np.isfinite(lambdas).all() or lambdas[-1] <= 0:
        raise DataError(f"lambdas: expected positive numbers, found {lambdas.tolist()}; lambda 0 is least squares")
    if not tolerance >= 1e-13:
        raise DataError(f"tolerance: expected at least 1e-13, which is what float64 gives, found {tolerance}")
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(cross)):
        raise DataError(f"targets: expected 0 to {len(cross) - 1}, found {rows.min()} to {rows.max()}")
    scale = np.sqrt(np.maximum(np.diagonal(second), 0.0))
    for start in range(0, p, TILE):  # by tiles: a comparison of the whole would take the memory of S again
        rows = slice(start, start + TILE)
        if not np.isfinite(second[rows]).all():
            raise DataError(f"second moment: row {start + np.argwhere(~np.isfinite(second[rows]))[0][0]} is not finite")
        for other in range(start, p, TILE):
            columns = slice(other, other + TILE)
            tile, mirrored = second[rows, columns], second[columns, rows].T
            if not np.array_equal(tile, mirrored) and (
                (np.abs(tile - mirrored) > 1e-8 * scale[rows, None] * scale[columns] + 1e-300).any()
            ):
                raise DataError("second moment: expected a symmetric matrix, found one that is not")
    if not np.isfinite(cross).all() or not np.isfinite(powers).all():
        raise DataError("cross moments: expected finite numbers, found NaN or infinity")
