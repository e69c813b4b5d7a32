"""Scores of features and the logits the last layer makes of them: ViM, ReAct, SIRC. All need the last layer as ``head``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from photopic.core.errors import DataError
from photopic.guard.open_set import _softmax
from photopic.guard.open_set._common import Column, OpenSetDetector, Rows

ORIGIN: dict[str, tuple[str, ...]] = {"origin_": ("width",), "null_": ("width", "minor")}


class ViM(OpenSetDetector):
    """Virtual-logit matching: energy against the part of a feature outside the principal subspace (Wang et al. 2022,
    arXiv 2203.10807).

    Args:
        head: (weight, bias) or a linear layer.
        dims: Dimensions of the principal subspace; None: 1000 of 1500 or more, 512 of 1024 or more, else half.
        contamination: Share of the fitted samples that is rejected.

    Example:
        >>> X = [[1.0, 0.0], [2.0, 0.1], [-1.0, 0.0], [-2.0, 0.1]]
        >>> detector = ViM(head=([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0])).fit(X)
        >>> on, off = detector.rejection_scores([[2.0, 0.0], [2.0, 3.0]])
        >>> bool(on < off)
        True
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {**ORIGIN, "alpha_": ()}
    _needs_head = True

    def __init__(self, head: Any = None, dims: int | None = None, contamination: float = 0.05):
        self.head = head
        self.dims = dims
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        self.origin_, self.null_ = _outside(self, clean)
        residual = float(_residual(clean, self.origin_, self.null_).mean())
        self.alpha_ = float(self._logits(clean).max(1).mean()) / residual if residual > 0 else 0.0
        return self._rejection(clean)

    def _rejection(self, features: Rows) -> Column:
        virtual = self.alpha_ * _residual(features, self.origin_, self.null_)
        return virtual + _softmax.energy(self._logits(features))  # the log-odds of the virtual class


class ReAct(OpenSetDetector):
    """Energy of features cut off at a quantile of the clean ones (Sun et al. 2021, arXiv 2111.12797).

    Args:
        head: (weight, bias) or a linear layer.
        quantile: Of all activations of the clean samples, 0 to 1.
        contamination: Share of the fitted samples that is rejected.

    Example:
        >>> detector = ReAct(head=([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), quantile=1.0).fit([[1.0, 0.0], [0.0, 2.0]])
        >>> detector.score_samples([[9.0, 0.0]]).round(3)
        array([2.127])
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {"limit_": ()}
    _needs_head = True

    def __init__(self, head: Any = None, quantile: float = 0.9, contamination: float = 0.05):
        self.head = head
        self.quantile = quantile
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        if not 0 < self._number("quantile") <= 1:
            raise DataError(f"ReAct: quantile: expected above 0 to 1, found {self.quantile}")
        self.limit_ = float(np.quantile(clean, self._number("quantile")))
        return self._rejection(clean)

    def _rejection(self, features: Rows) -> Column:
        return _softmax.energy(self._logits(np.minimum(features, self.limit_)))


class SIRC(OpenSetDetector):
    """Softmax information retaining combination (Xia and Bouganis 2022, arXiv 2207.07517) of two scores, both higher = reject:

        u = log(u0 (1 + exp(b (u1 - a))) + 1e-6),  a = mean + 3 std and b = 1 / std of u1 on clean samples

    Args:
        head: (weight, bias) or a linear layer.
        first: u0: ``msp`` or ``entropy``.
        second: u1: ``norm``, minus the L1 norm of the feature, or ``residual``, as ViM has it.
        dims: As for ``ViM``; only for ``residual``.
        contamination: Share of the fitted samples that is rejected.

    Example:
        >>> detector = SIRC(head=([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])).fit([[4.0, 0.0], [0.0, 5.0], [3.0, 0.0]])
        >>> sure, unsure = detector.rejection_scores([[4.0, 0.0], [2.0, 2.0]])
        >>> bool(sure < unsure)
        True
    """

    learned: ClassVar[dict[str, tuple[str, ...]]] = {**ORIGIN, "a_": (), "b_": ()}
    _needs_head = True

    def __init__(
        self,
        head: Any = None,
        first: str = "msp",
        second: str = "norm",
        dims: int | None = None,
        contamination: float = 0.05,
    ):
        self.head = head
        self.first = first
        self.second = second
        self.dims = dims
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        width = clean.shape[1]
        if self._one_of("second", ("norm", "residual")) == "residual":
            self.origin_, self.null_ = _outside(self, clean)
        else:
            self.origin_, self.null_ = np.zeros(width), np.zeros((width, 0))
        second = self._second(clean)
        spread = float(second.std())
        self.a_ = float(second.mean()) + 3 * spread
        self.b_ = 1 / spread if spread > 0 else 0.0
        return self._rejection(clean)

    def _second(self, features: Rows) -> Column:
        if self.second == "norm":
            return -np.abs(features).sum(1)
        return _residual(features, self.origin_, self.null_)

    def _rejection(self, features: Rows) -> Column:
        first = _softmax.msp if self._one_of("first", ("msp", "entropy")) == "msp" else _softmax.entropy
        with np.errstate(divide="ignore"):
            log_first = np.log(first(self._logits(features)))  # minus infinity where u0 underflows: the 1e-6 remains
        raised = np.logaddexp(0, self.b_ * (self._second(features) - self.a_))
        return np.logaddexp(log_first + raised, np.log(1e-6))


def _outside(detector: ViM | SIRC, clean: Rows) -> tuple[Column, Rows]:
    """The point where all logits are 0, as nearly as can be, and the directions the clean features use least."""
    weight, bias = detector._linear_head()
    width = clean.shape[1]
    dims = (1000 if width >= 1500 else 512 if width >= 1024 else width // 2) if detector.dims is None else detector.dims
    if isinstance(dims, bool) or not isinstance(dims, int) or not 0 <= dims < width:
        raise DataError(f"{detector._name}: dims: expected a whole number of 0 to {width - 1}, found {dims!r}")
    origin = -np.linalg.pinv(weight) @ bias
    shifted = clean - origin
    _, vectors = np.linalg.eigh(shifted.T @ shifted / len(clean))  # ascending
    return origin, np.ascontiguousarray(vectors[:, : width - dims])


def _residual(features: Rows, origin: Column, null: Rows) -> Column:
    return np.linalg.norm((features - origin) @ null, axis=1)
