"""Scores of logits alone: maximum softmax probability, maximum logit, energy, DOCTOR, entropy.

Nothing is learned but the threshold. They take logits, or features with the classifier's last layer as ``head``. What is left of
the largest probability is summed from the other classes, not taken as 1 minus it, so that very sure samples still differ.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from photopic.core.errors import DataError
from photopic.guard.open_set import _softmax
from photopic.guard.open_set._common import Column, OpenSetDetector, Rows


class LogitDetector(OpenSetDetector):
    """A score that is a function of a sample's logits.

    Args:
        head: (weight, bias) or a linear layer that makes logits of X; None: X are logits.
        contamination: Share of the fitted samples that is rejected.
    """

    def __init__(self, head: Any = None, contamination: float = 0.05):
        self.head = head
        self.contamination = contamination

    def _learn(self, clean: Rows, classes: Any, references: Rows) -> Column:
        return self._rejection(clean)

    def _rejection(self, features: Rows) -> Column:
        logits = self._logits(features)
        if logits.shape[1] < 2:
            raise DataError(f"{self._name}: expected logits of 2 classes or more, found 1 feature(s)")
        return self._of(logits)

    @abstractmethod
    def _of(self, logits: Rows) -> Column:
        """The rejection scores of some logits."""


class MSP(LogitDetector):
    """1 minus the maximum softmax probability (Hendrycks and Gimpel 2017, arXiv 1610.02136).

    Example:
        >>> detector = MSP().fit([[4.0, 0.0], [0.0, 5.0], [3.0, 0.0]])
        >>> detector.rejection_scores([[0.0, 0.0]])
        array([0.5])
    """

    def _of(self, logits: Rows) -> Column:
        return _softmax.msp(logits)


class MaxLogit(LogitDetector):
    """The largest logit, turned over (Hendrycks et al. 2022, arXiv 1911.11132).

    Example:
        >>> MaxLogit().fit([[4.0, 0.0], [0.0, 5.0]]).score_samples([[1.0, 2.0]])
        array([2.])
    """

    def _of(self, logits: Rows) -> Column:
        return -logits.max(1)


class Energy(LogitDetector):
    """Free energy: the log-sum-exp of the logits, turned over (Liu et al. 2020, arXiv 2010.03759), at temperature 1.

    Example:
        >>> Energy().fit([[4.0, 0.0], [0.0, 5.0]]).score_samples([[0.0, 0.0]]).round(3)
        array([0.693])
    """

    def _of(self, logits: Rows) -> Column:
        return _softmax.energy(logits)


class Doctor(LogitDetector):
    """DOCTOR (Granese et al. 2021, arXiv 2106.02395): (1 - sum p^2) / sum p^2.

    Example:
        >>> Doctor().fit([[4.0, 0.0], [0.0, 5.0]]).rejection_scores([[0.0, 0.0]])
        array([1.])
    """

    def _of(self, logits: Rows) -> Column:
        return _softmax.doctor(logits)


class Entropy(LogitDetector):
    """Entropy of the softmax probabilities, in nats.

    Example:
        >>> Entropy().fit([[4.0, 0.0], [0.0, 5.0]]).rejection_scores([[0.0, 0.0]]).round(3)
        array([0.693])
    """

    def _of(self, logits: Rows) -> Column:
        return _softmax.entropy(logits)
