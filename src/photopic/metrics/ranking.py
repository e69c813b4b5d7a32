"""How well a score separates two sets: the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num

from photopic.core.errors import DataError
from photopic.metrics.intervals import Interval


def auroc(
    positives: Sequence[float] | Num[np.ndarray, "p"], negatives: Sequence[float] | Num[np.ndarray, "q"]
) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney).

    Raises:
        DataError: If either set is empty.

    Example:
        >>> auroc([0.9, 0.8], [0.1, 0.8])
        0.875
    """
    positive, negative = np.asarray(positives, float), np.sort(np.asarray(negatives, float))
    if not len(positive) or not len(negative):
        raise DataError(f"AUROC needs both sets, found {len(positive)} positives and {len(negative)} negatives")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / len(negative))


def auroc_interval(
    positives: Sequence[Sequence[float]],
    negatives: Sequence[Sequence[float]],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """AUROC with a bootstrap over units: unit i holds ``positives[i]`` and ``negatives[i]``, such as one subject's
    scores.

    Example:
        >>> auroc_interval([[0.9], [0.8]], [[0.1], [0.2]])
        Interval(value=1.0, low=1.0, high=1.0)
    """
    if len(positives) != len(negatives):
        raise DataError(f"units need positives and negatives alike, found {len(positives)} and {len(negatives)}")
    rng = np.random.default_rng(seed)
    value = auroc(np.concatenate([*positives]), np.concatenate([*negatives]))
    draws = []
    for _ in range(resamples):
        picked = rng.integers(len(positives), size=len(positives))
        draws.append(
            auroc(np.concatenate([positives[i] for i in picked]), np.concatenate([negatives[i] for i in picked]))
        )
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))
