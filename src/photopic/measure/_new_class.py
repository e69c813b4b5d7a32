"""The logit of a class that a network does not know, as a sparse combination of the logits it has.

The paper names this use and no formula of it is confirmed: **this is our reading, not the paper's**. The target of a sample of the
new class lies one margin above its strongest logit, that of any other sample one margin below; CovLasso fits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from photopic.core.errors import DataError
from photopic.core.numerics.covariance import JointCovariance, checked
from photopic.core.numerics.lasso_path import lambda_grid, lasso_path

FOLDS = 4


@dataclass(frozen=True, eq=False)
class NewClass:
    """A logit made of others: ``logits[:, members] @ theta + offset``.

    Attributes:
        members: Classes it is made of.
        theta: Their coefficients.
        offset: What is added.
        lambda_: That was chosen, on standardised logits.
    """

    members: Int[np.ndarray, "k"]
    theta: Float[np.ndarray, "k"]
    offset: float
    lambda_: float

    def logit(self, logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
        """The new logit of samples."""
        return np.asarray(logits, np.float64)[:, self.members] @ self.theta + self.offset


def new_class(
    logits: Float[np.ndarray, "n classes"],
    belongs: Sequence[bool] | Bool[np.ndarray, "n"],
    *,
    lambdas: int = 20,
    smallest: float = 1e-2,
    seed: int = 0,
) -> NewClass:
    """Fit the logit of a new class to few labelled samples; our reading, not the paper's.

    Args:
        logits: Of the known classes, for samples of the new class and of others.
        belongs: Whether a sample is of the new class.
        lambdas: Length of the path; lambda is chosen by cross-validation in four folds.
        smallest: Last lambda over the first.
        seed: Of the folds.

    Raises:
        DataError: If there are fewer than four samples of either kind, or a logit is not finite.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(80, 5))
        >>> found = new_class(rows, rows[:, 1] > 0.5)
        >>> bool(found.theta[list(found.members).index(1)] > 0)
        True
    """
    rows, belongs = checked(logits, np.shape(logits)[1]), np.asarray(belongs, bool)
    if len(belongs) != len(rows) or min(belongs.sum(), (~belongs).sum()) < FOLDS:
        raise DataError(
            f"a new class: expected at least {FOLDS} samples of it and {FOLDS} of others, "
            f"found {int(belongs.sum())} and {int((~belongs).sum())} for {len(rows)} rows of logits"
        )
    ordered = np.sort(rows, 1)
    # how far the winner usually leads: what the new logit wins or loses by
    margin = max(float(np.median(ordered[:, -1] - ordered[:, -2])), 1e-6)
    target = ordered[:, -1] + np.where(belongs, margin, -margin)
    order = np.random.default_rng(seed).permutation(len(rows))
    fold = np.empty(len(rows), int)
    for kind in (True, False):  # every fold has samples of both kinds
        of_kind = order[belongs[order] == kind]
        fold[of_kind] = np.arange(len(of_kind)) % FOLDS  # in turns
    path = lambda_grid(2.0, count=lambdas, smallest=smallest)
    weights = np.where(belongs, 0.5 / belongs.sum(), 0.5 / (~belongs).sum())  # both kinds count the same
    errors = np.zeros(lambdas)
    for held in range(FOLDS):
        for step, (theta, offset) in enumerate(_fit(rows[fold != held], target[fold != held], path)):
            away = rows[fold == held] @ theta + offset - target[fold == held]  # (held out,)
            errors[step] += weights[fold == held] @ away**2
    step = int(errors.argmin())
    theta, offset = _fit(rows, target, path)[step]
    members = np.flatnonzero(theta)
    return NewClass(members, theta[members], float(offset), float(path[step]))


def _fit(rows: np.ndarray, target: np.ndarray, path: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Coefficients on the scale of the logits and offset, at every lambda."""
    seen = JointCovariance(1, rows.shape[1]).update_pair(target[:, None], rows)
    moment, scale = seen.moment("standardised"), seen.scales("standardised")
    found = lasso_path(np.ascontiguousarray(moment[1:, 1:]), path, cross=moment[:1, 1:], powers=np.ones(1), threads=1)
    fitted = []
    for step in range(len(path)):
        theta = found.coefficients(step).toarray()[0] * scale[0] / scale[1:]  # (classes,)
        fitted.append((theta, float(seen.mean[0] - theta @ seen.mean[1:])))
    return fitted
