"""Distances of features from those of clean samples: nearest neighbours, Mahalanobis, relative Mahalanobis."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from photopic.core.errors import DataError
from photopic.guard.open_set._common import (
    Column,
    OpenSetDetector,
    Rows,
    least_distance,
    normalised,
    nth_largest_cosine,
    whitening,
)


class KNN(OpenSetDetector):
    """1 minus the k-th largest cosine similarity to the features of clean samples (Sun et al. 2022, arXiv 2204.06507).

    A fitted sample is its own neighbour, so the threshold rests on scores that leave each sample out: ``contamination`` holds for
    new samples, and fewer of the fitted ones are rejected.

    Args:
        k: Which neighbour; UOSR (arXiv 2302.04002) takes the nearest.
        contamination: Share of the fitted samples, each left out, that is rejected.

    Example:
        >>> detector = KNN().fit([[1.0, 0.0], [2.0, 0.1], [0.9, 0.1]])
        >>> detector.rejection_scores([[3.0, 0.0], [0.0, 1.0]]).round(2)
        array([0.  , 0.89])
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {"bank_": ("n", "width")}

    def __init__(self, k: int = 1, contamination: float = 0.05):
        self.k = k
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        k = self._whole("k")
        if len(clean) <= k:
            raise DataError(f"KNN: k={k} needs {k + 1} clean samples or more, found {len(clean)} sample(s)")
        self.bank_ = normalised(clean)
        return 1 - nth_largest_cosine(self.bank_, self.bank_, k, leave_one_out=True)

    def _rejection(self, features: Rows) -> Column:
        return 1 - nth_largest_cosine(normalised(features), self.bank_, self._whole("k"))


class Mahalanobis(OpenSetDetector):
    """Squared Mahalanobis distance to the nearest class mean, one covariance for all classes (Lee et al. 2018, arXiv 1807.03888).

    Without classes there is one mean. The covariance is within classes; directions without any variance count nothing.

    Args:
        covariance: ``ledoit-wolf`` shrinks it, which few samples need; ``empirical`` does not, as published.
        contamination: Share of the fitted samples that is rejected.

    Example:
        >>> detector = Mahalanobis("empirical").fit([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> detector.rejection_scores([[1.0, 1.0], [3.0, 1.0]]).round(6)
        array([0., 4.])
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {"means_": ("classes", "width"), "whitening_": ("width", "kept")}

    def __init__(self, covariance: str = "ledoit-wolf", contamination: float = 0.05):
        self.covariance = covariance
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        shrunk = self._one_of("covariance", ("ledoit-wolf", "empirical")) == "ledoit-wolf"
        self.means_, inside = _means(clean, classes)
        self.whitening_ = whitening(clean - self.means_[inside], shrunk)
        return self._rejection(clean)

    def _rejection(self, features: Rows) -> Column:
        return least_distance(features, self.means_, self.whitening_)


class RelativeMahalanobis(OpenSetDetector):
    """Mahalanobis distance to the nearest class minus that to all samples as one (RMDS, Ren et al. 2021, arXiv 2106.09022).

    Args:
        covariance: As for ``Mahalanobis``.
        contamination: Share of the fitted samples that is rejected.

    Example:
        >>> X, y = [[0.0, 0.1], [0.2, 0.0], [4.0, 4.1], [4.2, 4.0]], ["cat", "cat", "dog", "dog"]
        >>> near, between = RelativeMahalanobis().fit(X, y).rejection_scores([[0.1, 0.1], [2.0, 2.0]])
        >>> bool(near < between)
        True
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {
        **Mahalanobis.learned,
        "background_mean_": ("one", "width"),
        "background_whitening_": ("width", "background_kept"),
    }

    def __init__(self, covariance: str = "ledoit-wolf", contamination: float = 0.05):
        self.covariance = covariance
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        shrunk = self._one_of("covariance", ("ledoit-wolf", "empirical")) == "ledoit-wolf"
        self.means_, inside = _means(clean, classes)
        if len(self.means_) < 2:
            raise DataError("RelativeMahalanobis: needs samples of 2 classes or more in y, found one class")
        self.whitening_ = whitening(clean - self.means_[inside], shrunk)
        self.background_mean_ = clean.mean(0, keepdims=True)
        self.background_whitening_ = whitening(clean - self.background_mean_, shrunk)
        return self._rejection(clean)

    def _rejection(self, features: Rows) -> Column:
        background = least_distance(features, self.background_mean_, self.background_whitening_)
        return least_distance(features, self.means_, self.whitening_) - background


def _means(clean: Rows, classes: Any) -> tuple[Rows, Any]:
    """The mean of each class, and which one each sample belongs to."""
    inside = np.zeros(len(clean), int) if classes is None else np.unique(classes, return_inverse=True)[1]
    sums = np.zeros((int(inside.max()) + 1, clean.shape[1]))
    np.add.at(sums, inside, clean)
    return sums / np.bincount(inside)[:, None], inside
