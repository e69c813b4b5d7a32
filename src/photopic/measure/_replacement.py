"""What becomes of a classifier's decisions when one logit is replaced by its sparse combination, for every class at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array


class Replacement:
    """Counts over batches: each class's logit replaced alone, all others left as they are.

    Args:
        theta: One row a class, over the predictors' logits.
        offset: To add to each sum.
    """

    def __init__(self, theta: csr_array, offset: Float[np.ndarray, "classes"]):
        self.theta, self.offset = theta.T.tocsr(), offset  # (predictors, classes)
        self.samples, self.correct = 0, 0
        self.positives, self.recalled, self.recalled_replaced, self.correct_replaced, self.agreeing = (
            np.zeros(len(offset), np.int64) for _ in range(5)
        )
        self.probability = np.zeros(len(offset))

    def update(
        self,
        targets: Float[np.ndarray, "n classes"],
        predictors: Float[np.ndarray, "n predictors"],
        labels: Int[np.ndarray, "n"] | None,
    ) -> None:
        """Add a batch; ``labels`` are the true classes, None where they are unknown."""
        rows, classes = np.arange(len(targets)), np.arange(targets.shape[1])
        replaced = predictors @ self.theta + self.offset  # (n, classes)
        first = targets.argmax(1)
        rest = targets.copy()
        rest[rows, first] = -np.inf
        second = rest.argmax(1)
        was = classes == first[:, None]  # (n, classes): whether the class had won
        strongest_other = np.where(was, targets[rows, second][:, None], targets[rows, first][:, None])
        wins = replaced > strongest_other
        otherwise = np.where(was, second[:, None], first[:, None])  # the decision where the replaced logit does not win
        self.samples += len(targets)
        self.agreeing += np.where(wins, was, otherwise == first[:, None]).sum(0)
        self.probability += np.abs(_probability(targets, replaced) - _probability(targets, targets)).sum(0)
        if labels is not None:
            true = classes == labels[:, None]
            self.correct += int((first == labels).sum())
            self.positives += true.sum(0)
            self.recalled += (true & was).sum(0)
            self.recalled_replaced += (true & wins).sum(0)
            self.correct_replaced += np.where(wins, true, otherwise == labels[:, None]).sum(0)

    def row(self, index: int, labelled: bool) -> dict[str, float | None]:
        """The measures of one class; without labels, and recall without positives, None."""
        positives = int(self.positives[index])
        return {
            "recall": self.recalled[index] / positives if positives else None,
            "recall_replaced": self.recalled_replaced[index] / positives if positives else None,
            "accuracy_replaced": self.correct_replaced[index] / self.samples if labelled else None,
            "agreement_replaced": self.agreeing[index] / self.samples,
            "probability_error": self.probability[index] / self.samples,
        }


def _probability(logits: np.ndarray, replaced: np.ndarray) -> np.ndarray:
    """Each class's softmax probability with its own logit replaced and the others left: p / (1 - p + p e^d), e^d on top."""
    top = np.maximum(logits.max(1, keepdims=True), replaced)
    others = np.exp(logits - logits.max(1, keepdims=True))
    total = others.sum(1, keepdims=True) - others  # of all other classes, in units of e^max
    own = np.exp(replaced - top)
    return own / (own + total * np.exp(logits.max(1, keepdims=True) - top))
