"""Scores of few-shot learning: intervals over seeds and pictures, the harmonic mean of base and new, the table of a learning curve.

What is resampled is both the seeds (which shots were drawn) and the test pictures, independently of each other and alike for
every method, so that differences are paired. With few seeds such an interval is rough; with one it is over pictures alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from photopic.core.errors import DataError
from photopic.metrics.intervals import Interval

Correct = Num[np.ndarray, "_ _"] | Sequence[Sequence[int]]  # one row a seed, one column a picture


def harmonic_mean(base: Any, new: Any) -> Any:
    """2 base new / (base + new), and 0 where both are 0.

    Args:
        base: Accuracy on the classes trained on, 0 or more; a number or an array.
        new: The same on the other classes.

    Raises:
        DataError: If one is negative or not finite.

    Example:
        >>> harmonic_mean(0.5, 1.0), harmonic_mean(0.0, 0.0)
        (0.6666666666666666, 0.0)
    """
    first, second = np.asarray(base, float), np.asarray(new, float)
    for each in (first, second):
        if not np.isfinite(each).all() or (each < 0).any():
            raise DataError(f"harmonic mean: expected numbers of 0 or more, found {float(np.min(each))}")
    total = first + second
    found = 2 * first * second / np.where(total > 0, total, 1.0)
    return found if found.ndim else float(found)


@dataclass(frozen=True)
class Outcome:
    """What one method did with one number of shots, for every seed.

    Attributes:
        correct: Whether each test picture was named right, one row a seed; of the base classes in the base-to-new protocol.
        new: The same for the new classes; None if there are none or the method cannot name them.
        trainable: Parameters that were trained.
        size_bytes: What would be saved.
        seconds: What learning took, of each seed.
    """

    correct: Correct
    new: Correct | None = None
    trainable: int = 0
    size_bytes: int = 0
    seconds: tuple[float, ...] = ()


def accuracy_interval(correct: Correct, baseline: Correct | None = None, **options: Any) -> Interval:
    """Mean accuracy, or its mean gain over a baseline on the same seeds and pictures, with a 95 % interval.

    Args:
        correct: 0 or 1, one row a seed and one column a picture.
        baseline: The same of another method, whose accuracy is taken away.
        options: ``confidence``, ``resamples`` and ``seed`` as in ``metrics.intervals``.

    Raises:
        DataError: If there is none, or shapes differ.

    Example:
        >>> accuracy_interval([[1, 0, 1, 1], [1, 1, 1, 1]]).value
        0.875
        >>> accuracy_interval([[1, 1]], [[1, 1]])
        Interval(value=0.0, low=0.0, high=0.0)
    """
    if baseline is None:
        return _interval([_stacked(correct)], lambda means: means, **options)
    return _interval([_stacked(correct, baseline)], lambda means, other: means - other, **options)


def harmonic_interval(
    base: Correct, new: Correct, baseline: tuple[Correct, Correct] | None = None, **options: Any
) -> Interval:
    """Harmonic mean of base and new accuracy of each seed, averaged over seeds; or its mean gain over a baseline.

    Args:
        base: 0 or 1 of the base classes, one row a seed and one column a picture.
        new: The same of the new classes, for the same seeds.
        baseline: Both of another method.
        options: As ``accuracy_interval``.

    Raises:
        DataError: If there is none, or shapes differ.

    Example:
        >>> round(harmonic_interval([[1, 0]], [[1, 1]]).value, 4)
        0.6667
    """
    if baseline is None:
        return _interval([_stacked(base), _stacked(new)], harmonic_mean, **options)
    groups = [_stacked(base, baseline[0]), _stacked(new, baseline[1])]

    def gain(b: np.ndarray, b0: np.ndarray, n: np.ndarray, n0: np.ndarray) -> np.ndarray:
        difference: np.ndarray = harmonic_mean(b, n) - harmonic_mean(b0, n0)
        return difference

    return _interval(groups, gain, **options)


def learning_curve_table(
    outcomes: Mapping[tuple[str, int], Outcome], reference: str | None = None, **options: Any
) -> tuple[dict[str, Any], ...]:
    """One row a method and number of shots, with intervals and the gain over a reference method.

    Args:
        outcomes: By (method, shots); those of one number of shots have the same seeds and pictures.
        reference: The method gains are over; None leaves them out.
        options: As ``accuracy_interval``.

    Returns:
        Rows of ``method``, ``shots``, ``score`` (accuracy; the harmonic mean where there are new classes), ``low``, ``high``,
        ``base``, ``new``, ``gain``, ``gain_low``, ``gain_high``, ``trainable``, ``size_bytes``, ``seconds`` and ``seeds``; None
        where a number does not exist.

    Example:
        >>> rows = learning_curve_table({("zero-shot", 1): Outcome([[1, 0]]), ("full", 1): Outcome([[1, 1]])}, "zero-shot")
        >>> [(row["method"], row["score"], row["gain"]) for row in rows]
        [('zero-shot', 0.5, None), ('full', 1.0, 0.5)]
    """
    protocol = any(each.new is not None for each in outcomes.values())
    rows = []
    for (method, shots), each in outcomes.items():
        score = _score(each, None, protocol, options)
        beside = outcomes.get((reference, shots)) if reference not in (None, method) else None
        gain = None if beside is None else _score(each, beside, protocol, options)
        new = None if each.new is None else float(np.mean(each.new))
        rows.append(
            {
                "method": method,
                "shots": shots,
                **dict(zip(("score", "low", "high"), score or (None,) * 3, strict=True)),
                "base": float(np.mean(each.correct)) if protocol else None,
                "new": new,
                **dict(zip(("gain", "gain_low", "gain_high"), gain or (None,) * 3, strict=True)),
                "trainable": each.trainable,
                "size_bytes": each.size_bytes,
                "seconds": float(np.mean(each.seconds)) if each.seconds else None,
                "seeds": len(each.correct),
            }
        )
    return tuple(rows)


def _score(each: Outcome, beside: Outcome | None, protocol: bool, options: Mapping[str, Any]) -> Interval | None:
    if not protocol:
        return accuracy_interval(each.correct, None if beside is None else beside.correct, **options)
    if each.new is None or (beside is not None and beside.new is None):
        return None
    baseline = None if beside is None or beside.new is None else (beside.correct, beside.new)
    return harmonic_interval(each.correct, each.new, baseline, **options)


def _stacked(*kinds: Correct) -> Float[np.ndarray, "kinds seeds pictures"]:
    found = [np.asarray(each, float) for each in kinds]
    if any(each.ndim != 2 or not each.size for each in found) or len({each.shape for each in found}) > 1:
        shapes = " and ".join(str(each.shape) for each in found)
        raise DataError(f"few-shot scores: expected one row a seed and one column a picture, alike, found {shapes}")
    return np.stack(found)


def _interval(
    groups: Sequence[Float[np.ndarray, "kinds seeds pictures"]],
    statistic: Callable[..., np.ndarray],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap; ``statistic`` maps accuracies (..., seeds) of every kind to a score of every seed."""
    seeds = groups[0].shape[1]
    if any(group.shape[1] != seeds for group in groups):
        raise DataError(f"few-shot scores: expected as many seeds everywhere, found {[g.shape[1] for g in groups]}")
    rng = np.random.default_rng(seed)
    value = float(np.mean(statistic(*(kind.mean(-1) for group in groups for kind in group))))
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds  # (resamples, seeds)
    means = []
    for group in groups:
        count = group.shape[2]
        drawn = rng.multinomial(count, np.full(count, 1 / count), resamples) / count  # (resamples, pictures)
        means += [drawn @ kind.T for kind in group]  # (resamples, pictures) @ (pictures, seeds)
    draws = (statistic(*means) * weights).sum(1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(min(low, value)), float(max(high, value)))
