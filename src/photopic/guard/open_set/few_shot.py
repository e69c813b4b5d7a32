"""Few-shot scores: a handful of samples of unknown classes says where not to accept. FS-KNN, SSD, FS-KNNS (arXiv 2302.04002).

References are the samples that ``fit`` gets with y = -1. What is changed against the published code, each with a switch back:

- Scores are scaled by clean and reference samples, so that a sample's score does not depend on what else is tested
  (``normalisation="transductive"`` scales by what is tested).
- The similarity of a reference to itself is not among its five largest (``self_similarity=True`` counts it).
- The fifth largest is found whatever the number of references (``published_index=True`` takes entry 995 of the ascending
  similarities as the released script does, and so needs 996 references).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64
from scipy.special import expit

from photopic.core.errors import DataError
from photopic.guard.open_set import _softmax
from photopic.guard.open_set._common import (
    Column,
    OpenSetDetector,
    Rows,
    least_distance,
    normalised,
    nth_largest_cosine,
    whitening,
)

PUBLISHED_INDEX = 995


class FewShotKNN(OpenSetDetector):
    """FS-KNN: (1 - cos_k(x, clean)) + cos_k(x, references), cos_k the k-th largest similarity.

    Args:
        k: Which neighbour.
        published_index: Whether to take entry 995 of the ascending similarities to the references.
        contamination: Share of the fitted samples, each left out, that is rejected.

    Example:
        >>> X, y = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [0, 0, -1]
        >>> FewShotKNN(k=1).fit(X, y).rejection_scores([[1.0, 0.0], [0.0, 1.0]]).round(1)
        array([0. , 1.9])
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {"bank_": ("n", "width"), "references_": ("m", "width")}

    def __init__(self, k: int = 5, published_index: bool = False, contamination: float = 0.05):
        self.k = k
        self.published_index = published_index
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        _check_counts(self, self._whole("k"), clean, references, 0)
        self.bank_, self.references_ = normalised(clean), normalised(references)
        return _contrast(self, self.bank_, own="bank")

    def _rejection(self, features: Rows) -> Column:
        return _contrast(self, normalised(features))


class SSD(OpenSetDetector):
    """SSD (Sehwag et al. 2021, arXiv 2103.12051) with shots: squared Mahalanobis distance to the clean features minus that to the
    references, features of length 1, covariances shrunk as Ledoit and Wolf do.

    Args:
        contamination: Share of the fitted samples that is rejected.

    Example:
        >>> X = [[1.0, 0.0], [1.0, 0.2], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
        >>> detector = SSD().fit(X, [0, 0, 0, -1, -1])
        >>> near, far = detector.rejection_scores([[1.0, 0.1], [0.0, 1.0]])
        >>> bool(near < far)
        True
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {
        "mean_": ("one", "width"),
        "whitening_": ("width", "kept"),
        "reference_mean_": ("one", "width"),
        "reference_whitening_": ("width", "reference_kept"),
    }

    def __init__(self, contamination: float = 0.05):
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        _check_counts(self, 2, clean, references, 0)
        known, unknown = normalised(clean), normalised(references)
        self.mean_, self.reference_mean_ = known.mean(0, keepdims=True), unknown.mean(0, keepdims=True)
        self.whitening_ = whitening(known - self.mean_, True)
        self.reference_whitening_ = whitening(unknown - self.reference_mean_, True)
        return self._rejection(clean)

    def _rejection(self, features: Rows) -> Column:
        rows = normalised(features)
        known = least_distance(rows, self.mean_, self.whitening_)
        return known - least_distance(rows, self.reference_mean_, self.reference_whitening_)


class FewShotKNNS(OpenSetDetector):
    """FS-KNNS: u0 + u1 sigmoid(alpha (u1 - lambda)), u0 the softmax uncertainty, u1 the score of FS-KNN, both scaled to 0..1.

    Where a sample looks like known classes (u1 below lambda) only the classifier's own doubt counts, so that wrong predictions are
    rejected too; where it looks like the references u1 is added.

    Args:
        head: (weight, bias) or a linear layer.
        k: Which neighbour.
        alpha: How sharply u1 is switched on.
        beta: lambda is the mean of u1 on the references minus ``beta`` standard deviations; published: 1, for video 0.5.
        gate: lambda itself; None: as ``beta`` says.
        normalisation: ``inductive`` scales by clean and reference samples; ``transductive``, as published, u0 by the samples to be
            scored and u1 by these too.
        self_similarity: Whether a fitted sample counts among its own neighbours, as published.
        published_index: As for ``FewShotKNN``.
        contamination: Share of the fitted samples, each left out, that is rejected.

    Example:
        >>> X, y = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], [0, 0, -1, -1]
        >>> detector = FewShotKNNS(head=([[2.0, 0.0], [0.0, 0.1]], [0.0, 0.0]), k=1).fit(X, y)
        >>> known, unknown = detector.rejection_scores([[1.0, 0.0], [0.0, 1.0]])
        >>> bool(known < unknown)
        True
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {
        **FewShotKNN.learned,
        "first_range_": ("two",),
        "second_range_": ("two",),
        "reference_scores_": ("m",),
    }
    _needs_head = True

    def __init__(
        self,
        head: Any = None,
        k: int = 5,
        alpha: float = 50.0,
        beta: float = 1.0,
        gate: float | None = None,
        normalisation: str = "inductive",
        self_similarity: bool = False,
        published_index: bool = False,
        contamination: float = 0.05,
    ):
        self.head = head
        self.k = k
        self.alpha = alpha
        self.beta = beta
        self.gate = gate
        self.normalisation = normalisation
        self.self_similarity = self_similarity
        self.published_index = published_index
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        _check_counts(self, self._whole("k"), clean, references, 0 if self.self_similarity else 1)
        self.bank_, self.references_ = normalised(clean), normalised(references)
        first = _softmax.msp(self._logits(clean))
        second = _contrast(self, self.bank_, own=None if self.self_similarity else "bank")
        self.reference_scores_ = _contrast(self, self.references_, own=None if self.self_similarity else "references")
        self.first_range_ = _range(first, _softmax.msp(self._logits(references)))
        self.second_range_ = _range(second, self.reference_scores_)
        return self._combined(first, second)

    def _rejection(self, features: Rows) -> Column:
        return self._combined(_softmax.msp(self._logits(features)), _contrast(self, normalised(features)))

    def _combined(self, first: Column, second: Column) -> Column:
        first_range, second_range = self.first_range_, self.second_range_
        if self._one_of("normalisation", ("inductive", "transductive")) == "transductive":
            first_range, second_range = _range(first), _range(second, second_range)
        u0, u1 = _scaled(first, first_range), _scaled(second, second_range)
        shots = _scaled(self.reference_scores_, second_range)
        gate = shots.mean() - self._number("beta") * shots.std() if self.gate is None else self.gate
        return u0 + u1 * expit(self._number("alpha") * (u1 - gate))


def _check_counts(
    detector: FewShotKNN | SSD | FewShotKNNS, needed: int, clean: Rows, references: Rows, own: int
) -> None:
    """``own`` is 1 where a reference is compared with the others."""
    name = detector._name
    if not len(references):
        raise DataError(f"{name}: no references found; give samples of what to reject to fit, with y = -1")
    if len(references) < needed + own:
        raise DataError(f"{name}: needs {needed + own} references or more (y = -1), found {len(references)}")
    if len(clean) <= needed:
        raise DataError(f"{name}: needs {needed + 1} clean samples or more, found {len(clean)} sample(s)")
    if getattr(detector, "published_index", False) and len(references) <= PUBLISHED_INDEX + own:
        raise DataError(
            f"{name}: published_index takes entry {PUBLISHED_INDEX} of the similarities to the references and there are only "
            f"{len(references)}; leave it out, the {needed}-th largest is then found for any number"
        )


def _contrast(detector: FewShotKNN | FewShotKNNS, rows: Rows, own: str | None = None) -> Column:
    """(1 - cos_k to the clean) + cos_k to the references; ``own`` says which of the two the rows are themselves."""
    k = detector._whole("k")
    place = len(detector.references_) - PUBLISHED_INDEX if detector.published_index else k
    near = nth_largest_cosine(rows, detector.bank_, k, leave_one_out=own == "bank")
    return 1 - near + nth_largest_cosine(rows, detector.references_, place, leave_one_out=own == "references")


def _range(*several: Column) -> Float64[np.ndarray, "two"]:
    return np.array([min(each.min() for each in several), max(each.max() for each in several)])


def _scaled(values: Column, ends: Float64[np.ndarray, "two"]) -> Column:
    """0 at the lower end and 1 at the upper; samples beyond them stay beyond."""
    low, high = ends
    return (values - low) / (high - low if high > low else 1.0)
