"""How good a rejection score is: open-set recognition (OSR) and unified open-set recognition (UOSR, arXiv 2302.04002).

Samples fall into three groups: of a known class and classified correctly (InC), of a known class and classified wrongly (InW), of
an unknown class (OoD). OSR asks that OoD is rejected, UOSR that InW is too. Every metric is a function of one table, how many of
each group have each distinct score, so ties are exact: a tie counts half in an AUROC, and the area under the risk-coverage curve
(AURC) is the mean over all orders of tied samples. Both areas are mixtures of the three AUROCs between groups,

    UOSR = (n_InW A(InC, InW) + n_OoD A(InC, OoD)) / (n_InW + n_OoD)
    OSR  = (n_InC A(InC, OoD) + n_InW A(InW, OoD)) / (n_InC + n_InW)

and a report carries how far it is from that. The published AURC ranks ``1 - score`` in the type of the scores, which ties scores
that differ and then takes known classes first: ``aurc(scores, compat="published")``. The published FPR looks at the points that
scikit-learn's ``roc_curve`` keeps: ``fpr_at(scores, rule="published")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Num

from photopic.core.errors import DataError
from photopic.metrics._rejection_tables import Counts, Rule, aurc_of, f1_curve, fpr_of, metrics_of, sides, table

GROUPS = ("InC", "InW", "OoD")
METRICS = ("inc_ood", "inc_inw", "inw_ood", "osr", "uosr", "aurc", "fpr95_osr", "fpr95_uosr", "f1_best", "accuracy")


@dataclass(frozen=True, eq=False)
class Scores:
    """One score a sample, higher = reject, and the group of each sample.

    Attributes:
        values: The scores.
        groups: 0 InC, 1 InW, 2 OoD.
        precision: The type of numbers the scores came in, such as ``float32``.

    Example:
        >>> Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False]).counts.tolist()
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """

    values: Float64[np.ndarray, "n"]
    groups: Int64[np.ndarray, "n"]
    precision: str = "float64"

    @classmethod
    def of(
        cls,
        values: Sequence[float] | Num[np.ndarray, "n"],
        *,
        known: Sequence[bool] | Bool[np.ndarray, "n"],
        correct: Sequence[bool] | Bool[np.ndarray, "n"],
        higher: Literal["reject", "accept"] = "reject",
    ) -> Scores:
        """Scores of samples with what they are.

        Args:
            values: One number a sample; infinite is allowed.
            known: Whether the sample is of a class the classifier knows.
            correct: Whether the classifier named its class; not looked at where ``known`` is False.
            higher: What a higher value says: ``accept`` for ``score_samples`` of scikit-learn's detectors.

        Raises:
            DataError: If lengths differ, there is no sample, or a score is NaN.
        """
        given = np.asarray(values)
        numbers, is_known, is_correct = given.astype(float), np.asarray(known, bool), np.asarray(correct, bool)
        if not numbers.shape == is_known.shape == is_correct.shape or numbers.ndim != 1 or not len(numbers):
            raise DataError(
                "scores: expected one score, one known and one correct a sample, found shapes "
                f"{numbers.shape}, {is_known.shape} and {is_correct.shape}"
            )
        if np.isnan(numbers).any():
            raise DataError(
                f"scores: {int(np.isnan(numbers).sum())} of {len(numbers)} are NaN; leave those samples out"
            )
        groups = np.where(is_known, np.where(is_correct, 0, 1), 2)
        precision = given.dtype.name if given.dtype.kind == "f" else "float64"
        return cls(numbers if higher == "reject" else -numbers, groups.astype(np.int64), precision)

    @cached_property
    def levels(self) -> tuple[Float64[np.ndarray, "levels"], Int64[np.ndarray, "n"]]:
        """The distinct scores ascending, and the place of each sample's among them."""
        return np.unique(self.values, return_inverse=True)

    @property
    def counts(self) -> Counts:
        """How many samples of each group have each distinct score, scores ascending."""
        return table(self.levels[1], self.groups, len(self.levels[0]))


def rejection_metrics(scores: Scores) -> dict[str, float | None]:
    """Every metric of ``METRICS``; None where a group it needs is empty.

    Args:
        scores: Scores and groups.

    Returns:
        ``inc_ood``, ``inc_inw``, ``inw_ood``: AUROC between two groups, the second to be rejected. ``osr``, ``uosr``. ``aurc``:
        mean error rate over all coverages, not times 1000. ``fpr95_osr``, ``fpr95_uosr``: share of what should be accepted that is
        rejected at the point of the ROC curve nearest to a true positive rate of 0.95. ``f1_best``: of rejecting what UOSR rejects,
        at the best threshold for these very samples, so optimistic. ``accuracy``: of the classifier on known classes.

    Example:
        >>> scores = Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False])
        >>> rejection_metrics(scores)["uosr"]
        1.0
    """
    return metrics_of(scores.counts)


def aurc(scores: Scores, *, compat: Literal["exact", "published"] = "exact") -> float:
    """Area under the risk-coverage curve: the error rate among the k most confident, averaged over k.

    Args:
        scores: Scores and groups; InW and OoD are errors.
        compat: ``exact`` ranks the scores in float64 and averages over all orders of ties; ``published`` sorts ``1 - score`` in
            the type the scores came in, stable, known classes first.

    Example:
        >>> aurc(Scores.of([0.5, 0.5], known=[True, True], correct=[True, False]))
        0.5
    """
    if compat == "exact":
        return aurc_of(scores.counts)
    known_first = np.argsort(scores.groups == 2, kind="stable")
    values, errors = scores.values[known_first].astype(scores.precision), scores.groups[known_first] > 0
    order = np.argsort(
        -(values.dtype.type(1) - values), kind="stable"
    )  # 1 - score is the published confidence, turned over
    return float(np.mean(np.cumsum(errors[order]) / np.arange(1, len(order) + 1)))


def fpr_at(
    scores: Scores,
    *,
    tpr: float = 0.95,
    task: Literal["osr", "uosr"] = "uosr",
    rule: Rule = "nearest",
    positive: Literal["reject", "accept"] = "reject",
) -> float:
    """Share of what should be accepted that is rejected when a share ``tpr`` of what should be rejected is; or the other way round.

    Args:
        scores: Scores and groups.
        tpr: The true positive rate, 0 to 1.
        task: Whether wrong predictions should be accepted (``osr``) or rejected (``uosr``).
        rule: ``nearest``: the point of the ROC curve nearest to ``tpr``; ``at_least``: the first that is not below it;
            ``published``: the nearest of those that ``sklearn.metrics.roc_curve`` keeps, without those on a straight line.
        positive: What the true positive rate is of. ``accept``: the share of what should be rejected that is accepted when a share
            ``tpr`` of what should be accepted is, which other papers report.

    Raises:
        DataError: If nothing should be accepted, or nothing rejected.
    """
    accept, reject = sides(scores.counts, task)
    if not accept.sum() or not reject.sum():
        raise DataError(f"FPR needs both sides, found {accept.sum()} samples to accept and {reject.sum()} to reject")
    if positive == "accept":  # the lowest scores come first
        accept, reject = reject[::-1], accept[::-1]
    return fpr_of(accept, reject, tpr, rule)


def f1_at(scores: Scores, threshold: float) -> float:
    """F1 of rejecting what is above a threshold, where InW and OoD should be; 0 where nothing is to be rejected.

    Example:
        >>> f1_at(Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False]), 0.5)
        1.0
    """
    rejected, wanted = scores.values > threshold, scores.groups > 0
    total = int(rejected.sum() + wanted.sum())
    return 2 * int((rejected & wanted).sum()) / total if total else 0.0


def best_f1(scores: Scores) -> tuple[float, float]:
    """The best F1 and the threshold that reaches it, halfway between two scores; choose it on validation data.

    Example:
        >>> best_f1(Scores.of([0.1, 0.8, 0.9], known=[True, True, False], correct=[True, False, False]))
        (1.0, 0.45)
    """
    levels = scores.levels[0]
    f1 = f1_curve(scores.counts)
    best = int(f1.argmax())
    threshold = levels[best] - 1.0 if best == 0 else (levels[best - 1] + levels[best]) / 2
    if best and not levels[best - 1] <= threshold < levels[best]:  # neighbours in float64, or infinite
        threshold = levels[best - 1]
    return float(f1[best]), float(threshold)
