"""Run scikit-learn's own checks over every detector and print what failed, as JSON; a process of its own, because the checks
construct detectors with arguments of wrong types, which the test suite's type checker refuses before the detector can.

Detectors that need what no check gives (a head that fits any width, references) are checked as subclasses that make it up.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sklearn.utils.estimator_checks import check_estimator

from photopic.guard.open_set import (
    KNN,
    MSP,
    SIRC,
    SSD,
    Doctor,
    Energy,
    Entropy,
    FewShotKNN,
    FewShotKNNS,
    Mahalanobis,
    MaxLogit,
    ReAct,
    RelativeMahalanobis,
    ViM,
)

OWN_NEIGHBOUR = (
    "a fitted sample is its own neighbour, so the threshold leaves each out and holds for new samples instead"
)
NO_CLASSES = "the check fits without classes, of which this detector needs two"
LEFT_OUT = {"check_outliers_train": OWN_NEIGHBOUR, "check_outliers_fit_predict": OWN_NEIGHBOUR}
TRANSDUCTIVE = "published normalisation: a score depends on what else is scored"


def linear(width: int) -> tuple[np.ndarray, np.ndarray]:
    """A head of three classes for any width."""
    return np.random.default_rng(0).normal(size=(3, width)), np.zeros(3)


def with_references(fit: Any, self: Any, X: Any, y: Any = None) -> Any:
    """Add two far samples a class as references, where the data can be used at all."""
    rows = np.asarray(X) if not hasattr(X, "toarray") else np.empty(0)
    if rows.dtype == object and not any(isinstance(each, dict | str) for each in rows.flat):
        rows = rows.astype(float)
    if rows.dtype.kind not in "fiu" or rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        return fit(self, X, y)
    shots = rows.mean(0) + 3 * (rows.std() + 1) * np.random.default_rng(1).normal(size=(8, rows.shape[1]))
    classes = np.zeros(len(rows), int) if y is None else np.asarray(y).ravel()
    return fit(self, np.concatenate([rows, shots]), np.append(classes, [-1] * 8))


class HeadedViM(ViM):
    def _linear_head(self) -> Any:
        return linear(self.n_features_in_)


class HeadedReAct(ReAct):
    def _linear_head(self) -> Any:
        return linear(self.n_features_in_)


class HeadedSIRC(SIRC):
    def _linear_head(self) -> Any:
        return linear(self.n_features_in_)


class ShotKNN(FewShotKNN):
    def fit(self, X: Any, y: Any = None) -> Any:
        return with_references(FewShotKNN.fit, self, X, y)


class ShotSSD(SSD):
    def fit(self, X: Any, y: Any = None) -> Any:
        return with_references(SSD.fit, self, X, y)


class ShotKNNS(FewShotKNNS):
    def _linear_head(self) -> Any:
        return linear(self.n_features_in_)

    def fit(self, X: Any, y: Any = None) -> Any:
        return with_references(FewShotKNNS.fit, self, X, y)


CASES: list[tuple[Any, dict[str, str]]] = [
    *(
        (each(), {})
        for each in (MSP, MaxLogit, Energy, Doctor, Entropy, Mahalanobis, HeadedViM, HeadedReAct, HeadedSIRC)
    ),
    (Mahalanobis("empirical"), {}),
    (HeadedSIRC(first="entropy", second="residual"), {}),
    (KNN(), LEFT_OUT),
    (KNN(k=5), LEFT_OUT),
]
FEW: list[tuple[Any, dict[str, str]]] = [
    (ShotKNN(k=1), LEFT_OUT),
    (ShotSSD(), {}),
    (ShotKNNS(k=1), LEFT_OUT),
    (ShotKNNS(k=1, normalisation="transductive"), LEFT_OUT | {"check_methods_subset_invariance": TRANSDUCTIVE}),
]
RELATIVE = (
    RelativeMahalanobis(),
    dict.fromkeys(("check_outliers_train", "check_outliers_fit_predict", "check_fit_score_takes_y"), NO_CLASSES),
)

if __name__ == "__main__":
    found = {}
    for detector, expected in [*CASES, *FEW, RELATIVE]:
        logs = check_estimator(detector, on_fail=None, on_skip=None, expected_failed_checks=expected)
        failed = {log["check_name"]: str(log["exception"])[:200] for log in logs if log["status"] == "failed"}
        found[repr(detector)] = {
            "failed": failed,
            "passed": sum(log["status"] == "passed" for log in logs),
            "expected": sorted({log["check_name"] for log in logs if log["status"] == "xfail"}),
        }
    print(json.dumps(found))
