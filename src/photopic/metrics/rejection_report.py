"""Reports over rejection scores: all metrics with bootstrap intervals, one row a class, and differences of two scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from photopic.core.errors import DataError
from photopic.core.results import Report, provenance
from photopic.metrics._rejection_tables import metrics_of, mixture_error, table
from photopic.metrics.intervals import Interval
from photopic.metrics.rejection import GROUPS, METRICS, Scores, f1_at, rejection_metrics


def rejection_report(
    scores: Scores,
    *,
    threshold: float | None = None,
    units: Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    **facts: Any,
) -> Report:
    """All metrics with bootstrap intervals, and how far the mixture identities are off.

    Args:
        scores: Scores and groups.
        threshold: Samples above it are rejected; None leaves out what depends on one.
        units: Label of each sample; samples with one label, such as pictures of one thing, are resampled together.
        confidence: Coverage of the intervals.
        resamples: Number of resamples.
        seed: Seed of the resampling.
        facts: JSON values for the provenance, such as ``scorer``.

    Returns:
        ``values``: every metric, the size of each group, ``mixture_error``; with a threshold ``f1``, ``accepted`` (share of each
        group) and ``selective_accuracy`` (of known and unknown samples that were accepted, the share that is InC).
        ``rows``: metric, value, low, high.

    Example:
        >>> scores = Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False])
        >>> rejection_report(scores, resamples=10).values["mixture_error"]
        0.0
    """
    counts, found = scores.counts, rejection_metrics(scores)
    drawn = list(_resampled([scores], units, resamples, seed))
    rows = []
    for name in METRICS:
        low, high = _bounds([draw[0][name] for draw in drawn], confidence) if found[name] is not None else (None, None)
        rows.append({"metric": name, "value": found[name], "low": low, "high": high})
    sizes = dict(zip(GROUPS, counts.sum(1).tolist(), strict=True))
    values: dict[str, Any] = {**found, **sizes, "mixture_error": mixture_error(counts, found)}
    if threshold is not None:
        accepted = scores.values <= threshold
        values |= {"threshold": threshold, "f1": f1_at(scores, threshold)}
        values["accepted"] = {
            name: float(accepted[scores.groups == index].mean()) if sizes[name] else None
            for index, name in enumerate(GROUPS)
        }
        values["selective_accuracy"] = float((scores.groups[accepted] == 0).mean()) if accepted.any() else None
    about = {"confidence": confidence, "resamples": resamples, "seed": seed, **facts}
    return Report("rejection", values, tuple(rows), provenance("metrics.rejection", **about))


def class_report(scores: Scores, labels: Sequence[object], *, threshold: float | None = None) -> Report:
    """One row a class: a known class against everything to be rejected, an unknown one against what is to be accepted.

    Args:
        scores: Scores and groups.
        labels: The true class of each sample; a name may not be both known and unknown.
        threshold: Samples above it are rejected; None leaves ``accepted`` empty.

    Returns:
        Rows of class, known, n, accuracy, auroc (of a known class its InC against all InW and OoD, of an unknown one all InC
        against it), accepted.

    Raises:
        DataError: If there is not one label a sample, or a class is known in one sample and unknown in another.

    Example:
        >>> scores = Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False])
        >>> [row["auroc"] for row in class_report(scores, ["cat", "cat", "dog"]).rows]
        [1.0, 1.0]
    """
    if len(labels) != len(scores.values):
        raise DataError(f"classes: expected {len(scores.values)} labels, one a score, found {len(labels)}")
    names = np.array([str(label) for label in labels])
    rows = []
    for name in dict.fromkeys(names.tolist()):
        inside = names == name
        known = scores.groups[inside] < 2
        if known.any() != known.all():
            raise DataError(f"classes: {name} is known in some samples and unknown in others; name them apart")
        accept = inside & (scores.groups == 0) if known.all() else scores.groups == 0
        reject = scores.groups > 0 if known.all() else inside
        area = None
        if accept.any() and reject.any():
            kept = accept | reject
            part = Scores(scores.values[kept], np.where(reject[kept], 2, 0).astype(np.int64))
            area = rejection_metrics(part)["inc_ood"]
        rows.append(
            {
                "class": name,
                "known": bool(known.all()),
                "n": int(inside.sum()),
                "accuracy": float((scores.groups[inside] == 0).mean()) if known.all() else None,
                "auroc": area,
                "accepted": None if threshold is None else float((scores.values[inside] <= threshold).mean()),
            }
        )
    return Report("rejection by class", {"classes": len(rows)}, tuple(rows), provenance("metrics.rejection"))


def paired_difference(
    scores: Scores,
    baseline: Scores,
    metric: str = "uosr",
    *,
    units: Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A metric of one score minus that of another on the same samples, both resampled alike.

    Args:
        scores: Scores and groups.
        baseline: Other scores of the same samples.
        metric: One of ``METRICS``.
        units: As ``rejection_report``.
        confidence: Coverage of the interval.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        DataError: If the samples are not the same ones, or the metric is unknown or not defined on them.

    Example:
        >>> groups = {"known": [True, True, False, False], "correct": [True, True, False, False]}
        >>> paired_difference(Scores.of([1.0, 2.0, 3.0, 4.0], **groups), Scores.of([1.0, 3.0, 2.0, 4.0], **groups)).value
        0.25
    """
    if not np.array_equal(scores.groups, baseline.groups):
        raise DataError("a paired difference needs the same samples in the same groups: score them with one classifier")
    if metric not in METRICS:
        raise DataError(f"metric {metric}: expected one of {', '.join(METRICS)}")
    first, second = rejection_metrics(scores)[metric], rejection_metrics(baseline)[metric]
    if first is None or second is None:
        raise DataError(f"{metric} is not defined: a group it needs has no sample")
    pairs = [(a[metric], b[metric]) for a, b in _resampled([scores, baseline], units, resamples, seed)]
    low, high = _bounds([None if a is None or b is None else a - b for a, b in pairs], confidence)
    return Interval(first - second, low, high)


def resampled_metrics(
    several: Sequence[Scores],
    metrics: Sequence[str],
    *,
    units: Sequence[object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Float64[np.ndarray, "resamples several metrics"]:
    """Metrics of several scores of as many samples, resampled alike; NaN where a resample lacks a group.

    Example:
        >>> scores = Scores.of([1.0, 2.0, 3.0, 4.0], known=[True, True, False, False], correct=[True, True, False, False])
        >>> resampled_metrics([scores, scores], ["uosr"], resamples=5).shape
        (5, 2, 1)
    """
    drawn = _resampled(several, units, resamples, seed)
    return np.array([[[each[name] for name in metrics] for each in draw] for draw in drawn], float)  # None: NaN


def _resampled(
    several: Sequence[Scores], units: Sequence[object] | None, resamples: int, seed: int
) -> Iterator[list[dict[str, float | None]]]:
    count = len(several[0].values)
    if units is not None and len(units) != count:
        raise DataError(f"units: expected {count} labels, one a sample, found {len(units)}")
    index = np.arange(count) if units is None else np.unique([str(unit) for unit in units], return_inverse=True)[1]
    rng, size = np.random.default_rng(seed), int(index.max()) + 1
    for _ in range(resamples):
        weights = np.bincount(rng.integers(size, size=size), minlength=size)[index]
        yield [metrics_of(table(each.levels[1], each.groups, len(each.levels[0]), weights)) for each in several]


def _bounds(draws: Sequence[float | None], confidence: float) -> tuple[float, float]:
    kept = [draw for draw in draws if draw is not None]  # a resample may miss a small group
    if not kept:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
