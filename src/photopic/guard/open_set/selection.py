"""Choose a scorer and its threshold on validation data, by a stated metric, with an interval.

The choice uses training and validation samples only. Validation samples need what the test will have: known classes, some of them
classified wrongly, and unknown classes that are not those of the test. The interval of the winner is on the data that chose it, so
a little optimistic; ``win_share`` says how often another resample of the validation data would have chosen the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from sklearn.base import clone

from photopic.core.errors import DataError
from photopic.core.results import Report, provenance
from photopic.guard.open_set._common import OpenSetDetector
from photopic.metrics.conformal import conformal_threshold
from photopic.metrics.intervals import Interval
from photopic.metrics.rejection import METRICS, Scores, best_f1, rejection_metrics
from photopic.metrics.rejection_report import resampled_metrics

LOWER_IS_BETTER = ("aurc", "fpr95_osr", "fpr95_uosr")
FIXED = ("accuracy",)  # of the classifier, the same for every scorer


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen.

    Attributes:
        name: Of the scorer.
        detector: Fitted, with the chosen threshold.
        threshold: Of the rejection score; above it is rejected.
        interval: The metric on the validation data, with its bounds.
        report: One row a candidate: scorer, value, low, high, win_share.
    """

    name: str
    detector: OpenSetDetector
    threshold: float
    interval: Interval
    report: Report


def select(
    candidates: Mapping[str, OpenSetDetector],
    X: Any,
    y: Any = None,
    *,
    validation: Any,
    known: Sequence[bool] | Bool[np.ndarray, "n"],
    correct: Sequence[bool] | Bool[np.ndarray, "n"],
    metric: str = "uosr",
    false_positive_rate: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Selection:
    """Fit every candidate, take the one best on the validation data, and set its threshold there.

    Args:
        candidates: Detectors by name; they are copied, not changed.
        X: Training features, or logits for scorers of logits.
        y: Their classes, -1 for references.
        validation: Features of validation samples, none of which is a training sample.
        known: Whether each is of a class the classifier knows.
        correct: Whether the classifier named its class.
        metric: One of ``photopic.metrics.rejection.METRICS`` but ``accuracy``.
        false_positive_rate: At most this share of correct known samples is expected to be rejected (conformal); None: the
            threshold with the best F1.
        resamples: Of the interval.
        seed: Of the resampling.

    Raises:
        DataError: If there is no candidate, the metric cannot be used, or validation samples are among the training ones.

    Example:
        >>> from photopic.guard.open_set import MSP, MaxLogit
        >>> train, validation = [[5.0, 0.0], [0.0, 4.0]], [[4.5, 0.0], [0.0, 3.0], [1.0, 0.9]]
        >>> groups = {"known": [True, True, False], "correct": [True, True, False]}
        >>> select({"msp": MSP(), "max-logit": MaxLogit()}, train, validation=validation, **groups, resamples=20).name
        'msp'
    """
    if not candidates:
        raise DataError("candidates: expected at least one detector, found none")
    if metric not in METRICS or metric in FIXED:
        raise DataError(f"metric {metric}: expected one of {', '.join(each for each in METRICS if each not in FIXED)}")
    _check_apart(X, validation)
    fitted = {name: clone(detector).fit(X, y) for name, detector in candidates.items()}
    scores = {
        name: Scores.of(detector.rejection_scores(validation), known=known, correct=correct)
        for name, detector in fitted.items()
    }
    sign = -1 if metric in LOWER_IS_BETTER else 1
    values = {name: rejection_metrics(each)[metric] for name, each in scores.items()}
    if any(value is None for value in values.values()):
        raise DataError(f"{metric} is not defined on the validation data: a group it needs has no sample")
    draws = resampled_metrics(list(scores.values()), [metric], resamples=resamples, seed=seed)[..., 0]
    draws = draws[~np.isnan(draws).any(1)]
    wins = np.bincount((sign * draws).argmax(1), minlength=len(scores)) / max(1, len(draws))
    rows: list[dict[str, Any]] = []
    for place, (name, value) in enumerate(values.items()):
        low, high = np.quantile(draws[:, place], [0.025, 0.975])
        found = {"value": value, "low": float(low), "high": float(high), "win_share": float(wins[place])}
        rows.append({"scorer": name, **found})
    best = max(rows, key=lambda row: sign * row["value"])
    chosen, at = fitted[best["scorer"]], scores[best["scorer"]]
    if false_positive_rate is None:
        threshold = best_f1(at)[1]
    else:
        threshold = conformal_threshold(at.values[at.groups == 0], false_positive_rate)
    chosen.offset_ = -threshold
    about = provenance("guard.open_set.select", metric=metric, false_positive_rate=false_positive_rate, seed=seed)
    report = Report(
        "selection", {"chosen": best["scorer"], "threshold": threshold, "n": len(at.values)}, tuple(rows), about
    )
    return Selection(best["scorer"], chosen, threshold, Interval(best["value"], best["low"], best["high"]), report)


def _check_apart(X: Any, validation: Any) -> None:
    """A sample that was fitted on says nothing about new ones."""
    seen = {row.tobytes() for row in np.ascontiguousarray(X, float)}
    both = sum(row.tobytes() in seen for row in np.ascontiguousarray(validation, float))
    if both:
        raise DataError(f"validation: {both} of {len(validation)} samples are training samples too; hold them out")
