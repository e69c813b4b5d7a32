"""Every metric of rejection as a function of one table: how many samples of each group have each distinct score."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

Rule = Literal["nearest", "at_least", "published"]  # which point of the ROC curve
Counts = Int64[np.ndarray, "3 levels"]  # InC, InW, OoD at each distinct score, scores ascending


def table(
    places: Int64[np.ndarray, "n"],
    groups: Int64[np.ndarray, "n"],
    levels: int,
    weights: Int64[np.ndarray, "n"] | None = None,
) -> Counts:
    """Count samples at the place of their score among the distinct ones, each as often as its weight says (None: once)."""
    return np.bincount(groups * levels + places, weights, 3 * levels).astype(np.int64).reshape(3, levels)


def metrics_of(counts: Counts) -> dict[str, float | None]:
    """Every metric; None where a group it needs is empty."""
    inc, inw, ood = counts
    found: dict[str, float | None] = {
        "inc_ood": area(inc, ood),
        "inc_inw": area(inc, inw),
        "inw_ood": area(inw, ood),
        "osr": area(*sides(counts, "osr")),
        "uosr": area(*sides(counts, "uosr")),
        "aurc": aurc_of(counts),
    }
    tasks: tuple[Literal["osr", "uosr"], ...] = ("osr", "uosr")
    for task in tasks:
        accept, reject = sides(counts, task)
        found[f"fpr95_{task}"] = fpr_of(accept, reject, 0.95, "nearest") if accept.any() and reject.any() else None
    found["f1_best"] = float(f1_curve(counts).max()) if inw.any() or ood.any() else None
    known = int(inc.sum() + inw.sum())
    found["accuracy"] = int(inc.sum()) / known if known else None
    return found


def sides(counts: Counts, task: Literal["osr", "uosr"]) -> tuple[Int64[np.ndarray, "l"], Int64[np.ndarray, "l"]]:
    """By level, what should be accepted and what rejected."""
    inc, inw, ood = counts
    return (inc + inw, ood) if task == "osr" else (inc, inw + ood)


def area(accept: Int64[np.ndarray, "l"], reject: Int64[np.ndarray, "l"]) -> float | None:
    """Chance that one to reject scores above one to accept, ties half; whole numbers until the division."""
    pairs = 2 * int(accept.sum()) * int(reject.sum())
    return int((reject * (2 * np.cumsum(accept) - accept)).sum()) / pairs if pairs else None


def aurc_of(counts: Counts) -> float:
    """At each place within a tie the expected error is the share of errors of the tie, whatever the order."""
    sizes = counts.sum(0)
    shares = (sizes - counts[0]) / np.maximum(sizes, 1)
    errors = np.cumsum(np.repeat(shares, sizes))
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


def fpr_of(accept: Int64[np.ndarray, "l"], reject: Int64[np.ndarray, "l"], tpr: float, rule: Rule) -> float:
    """False positive rate at the point of the ROC curve that the rule picks; rejecting nothing is a point too."""
    points = np.stack([np.cumsum(side[::-1]) for side in (accept, reject)])  # (2, levels), the highest score first
    if (
        rule == "published" and points.shape[1] > 2
    ):  # a point between two in one direction goes, the first and last stay
        bends = (np.diff(points, 2) != 0).any(0)
        points = points[:, np.concatenate([[True], bends, [True]])]
    false, true = np.insert(points, 0, 0, axis=1) / points[:, -1:]
    point = (true >= tpr).argmax() if rule == "at_least" else np.abs(true - tpr).argmin()
    return float(false[point])


def f1_curve(counts: Counts) -> Float64[np.ndarray, "levels"]:
    """F1 of rejecting each level and all above it."""
    wanted = counts[1] + counts[2]
    hits, rejected = (np.cumsum(side[::-1])[::-1] for side in (wanted, counts.sum(0)))
    return 2 * hits / np.maximum(rejected + wanted.sum(), 1)


def mixture_error(counts: Counts, found: dict[str, float | None]) -> float:
    """How far UOSR and OSR are from the mixtures of the three areas between groups."""
    inc, inw, ood = counts.sum(1).tolist()
    errors = [0.0]
    for name, parts in (
        ("uosr", ((inw, found["inc_inw"]), (ood, found["inc_ood"]))),
        ("osr", ((inc, found["inc_ood"]), (inw, found["inw_ood"]))),
    ):
        whole, total = found[name], sum(size for size, _ in parts)
        if whole is not None:
            errors.append(abs(whole - sum(size * (part or 0.0) for size, part in parts) / total))
    return max(errors)
