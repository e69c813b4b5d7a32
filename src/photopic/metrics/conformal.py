"""Thresholds with a promise: at most a stated share of new clean inputs exceeds them, whatever their distribution."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import beta

from photopic.core.errors import DataError


def conformal_threshold(scores: Float[np.ndarray, "n"], rate: float, *, largest: float = math.inf) -> float:
    """The split-conformal threshold of clean scores: the expected share of new clean scores above it is at most ``rate``.

    It is the ceil((n + 1)(1 - rate))-th smallest score (Vovk et al., *Algorithmic Learning in a Random World*).

    Args:
        scores: Of clean inputs that were used for nothing else; higher is more suspicious.
        rate: Of false positives, above 0 and below 1.
        largest: The score that no input can pass.

    Raises:
        DataError: If there are too few scores for the rate, one is not finite, or the threshold is one that nothing can pass.

    Example:
        >>> conformal_threshold(np.arange(100.0), 0.1)
        90.0
    """
    rank = conformal_rank(len(scores), rate)
    if not np.isfinite(scores).all():
        raise DataError("clean scores: expected finite numbers, found NaN or infinity")
    threshold = float(np.sort(scores)[rank - 1])
    if threshold >= largest:
        raise DataError(
            f"clean scores: {int((scores >= largest).sum())} of {len(scores)} are {largest:g}, the most there is, so no input "
            "could be rejected; use another score or a higher rate"
        )
    return threshold


def conformal_rank(n: int, rate: float) -> int:
    """Which of n clean scores is the threshold, counted from the smallest: ceil((n + 1)(1 - rate)).

    Raises:
        DataError: If that is more than there are.

    Example:
        >>> conformal_rank(100, 0.1)
        91
    """
    rank = math.ceil((n + 1) * (1 - rate))
    if rank > n:
        raise DataError(
            f"false positives of {rate:g}: expected {math.ceil(1 / rate) - 1} or more clean inputs, found {n}; "
            "give more, or allow a higher rate"
        )
    return rank


def false_positive_band(n: int, rate: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Where the true rate of false positives lies for a threshold from n clean scores without ties, over draws of these n.

    The rate follows a beta distribution (Vovk 2012, *Conditional validity of inductive conformal predictors*).

    Example:
        >>> low, high = false_positive_band(500, 0.05)
        >>> round(low, 3), round(high, 3)
        (0.033, 0.071)
    """
    above = n + 1 - math.ceil((n + 1) * (1 - rate))
    low, high = beta.ppf([(1 - confidence) / 2, (1 + confidence) / 2], above, n + 1 - above)
    return float(low), float(high)
