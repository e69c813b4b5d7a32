"""From logits in batches to coefficients and their errors on other samples, for ``neural_dependencies``.

A *part* is a third of the samples with a use of its own: to fit, to choose lambda by, to judge on. Errors on any part follow from
its covariance: the mean square of f_i - sum_j theta_j f_j about the fitted mean is theta' M theta, so no logit is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from photopic.core.errors import DataError
from photopic.core.numerics.covariance import Centring, Covariance, JointCovariance, checked
from photopic.core.numerics.lasso_path import LassoPath

Read = Callable[
    [np.ndarray], tuple[Any, Any]
]  # positions of samples -> logits of targets, logits of predictors or None


def parts(samples: int, shares: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the samples to fit, to choose by and to judge on.

    Raises:
        DataError: If a part would be left with fewer than two samples.
    """
    choose, judge = (round(samples * share) for share in shares)
    if min(choose, judge, samples - choose - judge) < 2:
        raise DataError(
            f"{samples} images: expected at least two to fit, two to choose lambda by and two to judge on, "
            f"found {samples - choose - judge}, {choose} and {judge}; give more images"
        )
    order = np.random.default_rng(seed).permutation(samples)
    return tuple(np.sort(each) for each in np.split(order, [samples - choose - judge, samples - judge]))  # type: ignore[return-value]


@dataclass(eq=False)
class Seen:
    """Moments of the targets' and the predictors' logits on one part."""

    covariance: Covariance
    targets: int
    between: bool  # the predictors are another network's

    @classmethod
    def empty(cls, targets: int, predictors: int | None, gauge: bool) -> Seen:
        """Nothing seen yet; ``predictors`` is None where the targets predict each other."""
        if predictors is None:
            return cls(Covariance(targets, gauge=gauge), targets, False)
        return cls(JointCovariance(targets, predictors, gauge=gauge), targets, True)

    def update(self, targets: Any, predictors: Any) -> None:
        """Add a batch."""
        if isinstance(self.covariance, JointCovariance):
            self.covariance.update_pair(targets, predictors)
        else:
            self.covariance.update(targets)

    def split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The targets' and the predictors' entries of a vector over all logits."""
        return (values[: self.targets], values[self.targets :]) if self.between else (values, values)

    def blocks(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """S of the predictors, r between targets and predictors, v of the targets, from a matrix over all logits."""
        if not self.between:
            return matrix, matrix, np.diagonal(matrix)
        n = self.targets
        return np.ascontiguousarray(matrix[n:, n:]), matrix[:n, n:], np.diagonal(matrix)[:n]


def read_part(read: Read, positions: np.ndarray, seen: Seen, batch: int) -> Iterator[int]:
    """Add a part to ``seen`` batch by batch; yields the samples read so far."""
    for start in range(0, len(positions), batch):
        seen.update(*read(positions[start : start + batch]))
        yield min(start + batch, len(positions))


def on_logits(found: LassoPath, step: int, seen: Seen, centring: Centring) -> csr_array:
    """theta on the scale of the logits: theta_j * std_i / std_j."""
    targets, predictors = seen.split(seen.covariance.scales(centring))
    theta = found.coefficients(step)
    rows = np.repeat(np.arange(theta.shape[0]), np.diff(theta.indptr))
    return csr_array((theta.data * targets[rows] / predictors[theta.indices], theta.indices, theta.indptr), theta.shape)


class Judge:
    """Relative errors of coefficients on one part: over the mean square of the logit about its fitted mean."""

    def __init__(self, part: Seen, fitted: Seen, centring: Centring):
        mean = fitted.covariance.mean
        # the fitted mean is subtracted, also from samples that did not make it
        about = part.covariance.moment(about=mean)
        self.unit = part.blocks(about)[2].copy()
        matrix = part.covariance.moment("raw") if centring == "raw" else about
        self.second, self.cross, self.powers = part.blocks(matrix)
        self.unit[self.unit <= 0] = np.nan  # constant here: no relative error

    def errors(self, theta: csr_array) -> Float[np.ndarray, "targets"]:
        """theta' M theta of every target over its unit; 0 is exact, 1 is what predicting the mean gives."""
        found = np.empty(theta.shape[0])
        for start in range(0, len(found), 128):  # by blocks: a product of all would take the memory of M again
            rows = theta[start : start + 128]
            linear = rows.multiply(self.cross[start : start + 128]).sum(1)  # r'theta
            quadratic = rows.multiply(rows @ self.second).sum(1)  # theta'S theta
            found[start : start + 128] = self.powers[start : start + 128] - 2 * linear + quadratic
        return np.maximum(found, 0.0) / self.unit


def best_single(seen: Seen, centring: Centring) -> csr_array:
    """Least squares on the one class that predicts best: the baseline of a support of one."""
    second, cross, _ = seen.blocks(seen.covariance.moment("raw" if centring == "raw" else "centred"))
    power = np.diagonal(second)
    # r_ij^2 / S_jj: what least squares on j alone explains of i
    explained = np.where(power > 0, cross**2 / np.where(power > 0, power, 1.0), -1.0)
    if not seen.between:
        np.fill_diagonal(explained, -1.0)
    best, rows = explained.argmax(1), np.arange(seen.targets)
    # theta = r / S of the one class
    scale = np.where(power[best] > 0, cross[rows, best] / np.where(power[best] > 0, power[best], 1.0), 0.0)
    return csr_array((scale, best, np.arange(len(rows) + 1)), shape=cross.shape)


def rank(seen: Seen, tolerance: float = 1e-9) -> int:
    """Eigenvalues of the targets' centred covariance above ``tolerance`` times the largest."""
    n = seen.targets
    values = np.linalg.eigvalsh(seen.covariance.moment()[:n, :n])
    return int((values > tolerance * max(values[-1], 0.0)).sum()) if values[-1] > 0 else 0


def shared_errors(judge: Seen, errors: Float[np.ndarray, " targets"]) -> Float[np.ndarray, " targets"]:
    """The same errors over the variance that is left of each logit without what all logits share, where that is less than half.

    A softmax does not see a number added to all logits of a picture (its gauge). Where that number varies much, every logit is
    nearly every other one, and an error is small over the logit's variance though nothing that tells classes apart is explained.

    Args:
        judge: Moments of the part that is judged on; the targets predict each other.
        errors: Relative to the variance of the logit.
    """
    moment = judge.covariance.moment()  # (targets, targets)
    own = np.diagonal(moment)
    left = own - 2 * moment.mean(1) + moment.mean()  # Var(z_i - m), m the mean logit of a picture
    without = errors * own / np.where(left > 0, left, np.nan)
    return np.where(left < own / 2, np.nan_to_num(without, nan=np.inf), errors)


def gauged(logits: Any, size: int, gauge: bool) -> Float[np.ndarray, "n size"]:
    """A batch as float64, with each sample's mean subtracted where the gauge is fixed."""
    rows = checked(logits, size)
    return rows - rows.mean(1, keepdims=True) if gauge else rows
