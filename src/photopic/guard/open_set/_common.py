"""The contract of every open-set detector: scikit-learn's for outlier detectors, with errors of one line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from photopic.core.errors import DataError, PhotopicError
from photopic.metrics.conformal import conformal_threshold

REFERENCE = -1  # the label of samples that are known to be outliers, as ``predict`` returns it
BLOCK = 1024  # rows of a similarity matrix held at a time

Rows = Float64[np.ndarray, "_n _width"]
Column = Float64[np.ndarray, "_n"]


class NotFittedDetectorError(PhotopicError, NotFittedError):
    """A detector that is asked before it was fitted."""


class WrongTypeError(DataError, TypeError):
    """What should be a matrix of numbers holds something else; scikit-learn's contract wants a TypeError."""


class OpenSetDetector(OutlierMixin, BaseEstimator, ABC):
    """What all detectors share. A detector defines ``_learn``, ``_rejection`` and the shapes of what it learns.

    Scores have scikit-learn's orientation in ``score_samples`` (higher = more normal) and that of the field in ``rejection_scores``
    (higher = reject); one is the other with its sign turned.

    Attributes:
        offset_: What ``decision_function`` takes off ``score_samples``: the quantile ``contamination`` of the training scores, or
            what ``calibrate`` found.
        learned: Shapes of the arrays a fitted detector needs besides its parameters, by name; words stand for sizes, ``width`` for
            that of the features. An empty shape is one number.
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {}
    contamination: Any
    head: Any = None

    def fit(self, X: Any, y: Any = None) -> OpenSetDetector:
        """Learn what is normal.

        Args:
            X: Features (n, width), or logits for a scorer of logits without a head; of clean samples of known classes.
            y: Class of each sample; -1 marks references of what to reject, which only few-shot detectors use and others leave out.

        Returns:
            The detector.

        Raises:
            DataError: If X is not a finite matrix, lengths differ, nothing is left, or the detector needs more than it gets.
        """
        features = self._checked(X, reset=True)
        classes = None if y is None else self._classes(features, y)
        reference = np.zeros(len(features), bool) if classes is None else classes == REFERENCE
        if reference.all():
            raise DataError(f"{self._name}: all {len(features)} samples are references (y is -1); give clean ones too")
        if not 0 < self._number("contamination") <= 0.5:
            raise DataError(f"{self._name}: contamination: expected above 0 to 0.5, found {self.contamination}")
        clean = features[~reference]
        training = self._learn(clean, None if classes is None else classes[~reference], features[reference])
        self.offset_ = float(np.quantile(-training, self._number("contamination")))
        return self

    def rejection_scores(self, X: Any) -> Column:
        """One score a sample, higher = reject, as ``photopic.metrics.rejection`` takes them.

        Raises:
            NotFittedDetectorError: If it is not fitted.
            DataError: If X is not a finite matrix of the width it was fitted with.
        """
        try:
            check_is_fitted(self, "offset_")
        except NotFittedError:
            raise NotFittedDetectorError(f"{self._name}: is not fitted; call fit with clean samples first") from None
        return self._rejection(self._checked(X, reset=False))

    def score_samples(self, X: Any) -> Column:
        """One score a sample, higher = more normal; raises as ``rejection_scores``."""
        return -self.rejection_scores(X)

    def decision_function(self, X: Any) -> Column:
        """``score_samples`` minus ``offset_``: negative = reject; raises as ``rejection_scores``."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Any:
        """1 = accept, -1 = reject; raises as ``rejection_scores``."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def calibrate(self, X: Any, rate: float) -> OpenSetDetector:
        """Set the threshold by split conformal calibration.

        Args:
            X: Clean samples that were not fitted on.
            rate: At most this share of new clean samples is expected to be rejected.

        Raises:
            DataError: If there are too few samples for the rate.
        """
        self.offset_ = -conformal_threshold(self.rejection_scores(X), rate)
        return self

    # -- for detectors

    @abstractmethod
    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        """Set what is learned and return the rejection scores of the clean samples."""

    @abstractmethod
    def _rejection(self, features: Rows) -> Column:
        """The rejection scores of checked samples."""

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
            raise DataError(f"{self._name}: {name}: expected a number, found {value!r}")
        return float(value)

    def _whole(self, name: str, least: int = 1) -> int:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise DataError(f"{self._name}: {name}: expected a whole number of {least} or more, found {value!r}")
        return int(value)

    def _one_of(self, name: str, names: Sequence[str]) -> str:
        value = getattr(self, name)
        if value not in names:
            raise DataError(f"{self._name}: {name}: expected one of {', '.join(names)}, found {value!r}")
        return str(value)

    def _linear_head(self) -> tuple[Rows, Column]:
        """Weight (classes, width) and bias of the head, float64."""
        if self.head is None:
            raise DataError(
                f"{self._name}: needs the classifier's last layer to make logits of features; give head=(weight, bias)"
            )
        try:
            weight, bias = self.head if isinstance(self.head, tuple | list) else (self.head.weight, self.head.bias)
            matrix = _array(weight)
            vector = np.zeros(len(matrix)) if bias is None else _array(bias)
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{self._name}: head: expected (weight, bias) or a linear layer ({error})") from None
        width = self.n_features_in_
        if matrix.ndim != 2 or matrix.shape[1] != width or vector.shape != matrix.shape[:1]:
            raise DataError(
                f"{self._name}: head: expected a weight of shape (classes, {width}) and a bias of (classes,), "
                f"found {matrix.shape} and {vector.shape}"
            )
        if not (np.isfinite(matrix).all() and np.isfinite(vector).all()):
            raise DataError(f"{self._name}: head: holds NaN or infinity")
        return matrix, vector

    def _logits(self, features: Rows) -> Rows:
        """Logits of features through the head; without one, for scorers of logits, the rows themselves."""
        if self.head is None and not self._needs_head:
            return features
        weight, bias = self._linear_head()
        return features @ weight.T + bias

    _needs_head: ClassVar[bool] = False

    def _checked(self, X: Any, *, reset: bool) -> Rows:
        try:
            return validate_data(self, X, dtype=np.float64, reset=reset)
        except (ValueError, TypeError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            advice = lines[-1] if lines[-1].startswith("Reshape") else ""
            kind = WrongTypeError if isinstance(error, TypeError) else DataError
            raise kind(" ".join(filter(None, [f"{self._name}: {lines[0]}", advice]))) from error

    def _classes(self, features: Rows, y: Any) -> Any:
        try:
            classes = column_or_1d(y)
            check_consistent_length(features, classes)
        except ValueError as error:
            raise DataError(f"{self._name}: y: {str(error).splitlines()[0]}") from error
        if classes.dtype.kind == "f" and not np.isfinite(classes).all():
            raise DataError(f"{self._name}: y: Input y contains NaN or infinity; give every sample a class")
        return classes


def _array(values: Any) -> Any:
    tensor = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    return np.asarray(tensor, np.float64)


def normalised(rows: Rows) -> Rows:
    """Rows of length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def nth_largest_cosine(rows: Rows, bank: Rows, n: int, *, leave_one_out: bool = False) -> Column:
    """The n-th largest cosine similarity of each row to those of a bank, both of length 1.

    Args:
        rows: What is compared.
        bank: With what.
        n: 1 is the largest.
        leave_one_out: Row i of the bank is row i itself and does not count.
    """
    found = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        similar = rows[start : start + BLOCK] @ bank.T  # (block, bank)
        if leave_one_out:
            own = np.arange(len(similar))
            similar[own, start + own] = -np.inf
        found[start : start + BLOCK] = np.partition(similar, similar.shape[1] - n, axis=1)[:, similar.shape[1] - n]
    return found


def whitening(centred: Rows, shrunk: bool) -> Rows:
    """A matrix whose product with its transpose is the pseudo-inverse of the covariance, shrunk as Ledoit and Wolf do or not."""
    if not centred.any():
        return np.zeros((centred.shape[1], 0))
    covariance = ledoit_wolf(centred, assume_centered=True)[0] if shrunk else centred.T @ centred / len(centred)
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    return np.ascontiguousarray(vectors[:, kept] / np.sqrt(values[kept]))  # so that a file gives the very same products


def least_distance(rows: Rows, means: Rows, whiten: Rows) -> Column:
    """Squared Mahalanobis distance to the nearest of several means."""
    if not whiten.shape[1]:
        return np.zeros(len(rows))
    centres = means @ whiten
    found = [
        cdist(rows[start : start + BLOCK] @ whiten, centres, "sqeuclidean").min(1)
        for start in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(found)
