"""Mean and covariance of vectors that arrive in batches: one pass, float64, memory for one matrix.

Batches are merged by the update of Chan, Golub and LeVeque (1979), which keeps the digits that a sum of squares minus a square of
sums would lose. Parts made apart can be merged; two aligned sets of vectors, such as the logits of two networks for the same
images, are joined side by side and read off by blocks.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from photopic.core.errors import DataError

Centring = Literal["standardised", "centred", "raw"]
CONSTANT = 1e-12  # of the second moment, below which a variance is that of rounding


class Covariance:
    """Running mean and scatter of ``size`` numbers.

    Attributes:
        count: Vectors seen.
        mean: Their mean.
        scatter: Sum over the vectors of the outer product of their deviation from the mean.

    Example:
        >>> seen = Covariance(2).update(np.array([[0.0, 1.0], [2.0, 1.0]])).update(np.array([[4.0, 4.0]]))
        >>> seen.mean.tolist(), seen.variances.round(3).tolist()
        ([2.0, 2.0], [2.667, 2.0])
    """

    def __init__(self, size: int, *, gauge: bool = False):
        """Args: size: Numbers in a vector. gauge: Subtract each vector's own mean first."""
        self.count, self.gauge = 0, gauge
        self.mean = np.zeros(size)
        self.scatter = np.zeros((size, size))

    def update(self, batch: Any) -> Covariance:
        """Add the rows of a batch; returns itself.

        Args:
            batch: (n, size) numbers; an array or a tensor.

        Raises:
            DataError: If a number is not finite (names sample and class) or the width differs.
        """
        rows = checked(batch, len(self.mean), first=self.count)
        if not len(rows):
            return self
        if self.gauge:
            rows = rows - rows.mean(1, keepdims=True)
        mean = rows.mean(0)
        rows = rows - mean
        self._add(len(rows), mean, rows.T @ rows)
        return self

    def merge(self, other: Covariance) -> Covariance:
        """Add what another one has seen; returns itself.

        Raises:
            DataError: If the other one has another width or another gauge.
        """
        if len(other.mean) != len(self.mean) or other.gauge != self.gauge:
            raise DataError(
                f"covariances do not fit: {len(self.mean)} classes, gauge {self.gauge} and "
                f"{len(other.mean)} classes, gauge {other.gauge}"
            )
        if other.count:
            self._add(other.count, other.mean, other.scatter)
        return self

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.scatter += scatter
        # n_a n_b / n times the square of the means' difference
        self.scatter += np.outer(shift * (self.count * count / total), shift)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def variances(self) -> Float[np.ndarray, "size"]:
        """Mean square of the deviation from the mean (over n, not n - 1)."""
        return np.diagonal(self.scatter) / max(self.count, 1)

    @property
    def constant(self) -> Bool[np.ndarray, "size"]:
        """Which numbers never changed, up to rounding."""
        return self.variances <= CONSTANT * (self.variances + self.mean**2)

    def scales(self, centring: Centring) -> Float[np.ndarray, "size"]:
        """What each number is divided by: its standard deviation when standardised (1 where it is constant), else 1."""
        if centring != "standardised":
            return np.ones(len(self.mean))
        return np.where(self.constant, 1.0, np.sqrt(self.variances))

    def moment(
        self, centring: Centring = "centred", *, about: np.ndarray | None = None
    ) -> Float[np.ndarray, "size size"]:
        """The second moment as a matrix of its own.

        Args:
            centring: ``centred`` covariance; ``standardised`` correlation; ``raw`` mean of outer products, without a mean.
            about: With ``centred``: deviations are from this point instead of the mean, such as the mean of other samples.
        """
        if not self.count:
            raise DataError("a covariance of no sample: expected at least one update, found none")
        found = self.scatter / self.count
        if centring == "raw" or about is not None:
            away = self.mean if about is None else self.mean - about
            found += np.outer(away, away)  # E (x - a)(x - a)' = Cov + (mean - a)(mean - a)'
        elif centring == "standardised":
            scale = self.scales(centring)
            found /= scale
            found /= scale[:, None]  # S_ij / (s_i s_j)
            found[self.constant] = 0.0
            found[:, self.constant] = 0.0
        return found


class JointCovariance(Covariance):
    """Covariance of two aligned sets, targets first, predictors behind them.

    Example:
        >>> seen = JointCovariance(1, 2).update_pair(np.array([[1.0], [3.0]]), np.array([[0.0, 1.0], [2.0, 1.0]]))
        >>> seen.moment()[:1, 1:].tolist()
        [[1.0, 0.0]]
    """

    def __init__(self, targets: int, predictors: int, *, gauge: bool = False):
        """Args: targets, predictors: Numbers in each vector. gauge: Subtract each vector's own mean first."""
        super().__init__(targets + predictors)
        self.targets, self.pair_gauge = targets, gauge

    def update_pair(self, targets: Any, predictors: Any) -> JointCovariance:
        """Add the rows of two batches of the same samples; returns itself.

        Raises:
            DataError: If the batches differ in length, a number is not finite, or a width differs.
        """
        left = checked(targets, self.targets, first=self.count)
        right = checked(predictors, len(self.mean) - self.targets, first=self.count)
        if len(left) != len(right):
            raise DataError(
                f"two networks on the same samples: expected as many rows, found {len(left)} and {len(right)}"
            )
        if self.pair_gauge:
            left, right = (rows - rows.mean(1, keepdims=True) for rows in (left, right))
        self.update(np.concatenate([left, right], 1))
        return self


def checked(batch: Any, size: int, *, first: int = 0) -> Float[np.ndarray, "n size"]:
    """A batch of logits as float64 rows.

    Args:
        batch: Array or tensor.
        size: Width expected.
        first: Number of its first row, for the message.

    Raises:
        DataError: If a number is not finite (names sample and class) or the width differs.

    Example:
        >>> checked([[1, 2]], 2).dtype
        dtype('float64')
    """
    values = batch.detach().cpu().numpy() if hasattr(batch, "detach") else np.asarray(batch)
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise DataError(f"logits: expected (samples, {size} classes), found {rows.shape}")
    if not np.isfinite(rows).all():
        sample, column = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(
            f"logits: sample {first + sample}, class {column} is {rows[sample, column]}: expected finite numbers; "
            "check the image and the precision the network runs at"
        )
    return rows
