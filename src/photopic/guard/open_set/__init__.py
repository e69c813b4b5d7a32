"""Which inputs of a classifier to reject: unknown classes, and known ones it is about to get wrong.

``SCORERS`` names every detector. Each has scikit-learn's contract for outlier detectors on features or logits; ``OpenSetGuard``
puts one around a classifier and takes pictures; ``select`` chooses among several on validation data.
"""

from __future__ import annotations

from typing import Any

from photopic.core.errors import PhotopicError
from photopic.guard.open_set._common import REFERENCE, NotFittedDetectorError, OpenSetDetector
from photopic.guard.open_set.distances import KNN, Mahalanobis, RelativeMahalanobis
from photopic.guard.open_set.features_and_logits import SIRC, ReAct, ViM
from photopic.guard.open_set.few_shot import SSD, FewShotKNN, FewShotKNNS
from photopic.guard.open_set.logits import MSP, Doctor, Energy, Entropy, MaxLogit

SCORERS: dict[str, type[OpenSetDetector]] = {
    "msp": MSP,
    "max-logit": MaxLogit,
    "energy": Energy,
    "doctor": Doctor,
    "entropy": Entropy,
    "knn": KNN,
    "mahalanobis": Mahalanobis,
    "rmds": RelativeMahalanobis,
    "vim": ViM,
    "react": ReAct,
    "sirc": SIRC,
    "fs-knn": FewShotKNN,
    "ssd": SSD,
    "fs-knns": FewShotKNNS,
}
FEW_SHOT = ("fs-knn", "ssd", "fs-knns")  # need references
CLASSES = ("rmds",)  # need the class of each clean sample


def scorer(name: str, *, head: Any = None, **settings: Any) -> OpenSetDetector:
    """A detector by name.

    Args:
        name: A key of ``SCORERS``.
        head: The classifier's last layer, or (weight, bias); given to those that use it.
        settings: Other arguments of the detector.

    Raises:
        PhotopicError: If the name or a setting is unknown.

    Example:
        >>> scorer("knn", k=5)
        KNN(k=5)
    """
    if name not in SCORERS:
        raise PhotopicError(f"scorer {name}: expected one of {', '.join(SCORERS)}")
    known = SCORERS[name]._get_param_names()
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise PhotopicError(f"scorer {name}: has no setting {unknown[0]}; it has {', '.join(known)}")
    return SCORERS[name](**settings | ({"head": head} if "head" in known else {}))


def name_of(detector: OpenSetDetector) -> str:
    """The key of ``SCORERS`` that a detector is of.

    Raises:
        PhotopicError: If it is of none.

    Example:
        >>> name_of(KNN(k=5))
        'knn'
    """
    found = next((name for name, kind in SCORERS.items() if kind is type(detector)), None)
    if found is None:
        raise PhotopicError(f"detector {type(detector).__name__}: expected one of {', '.join(SCORERS)}")
    return found


__all__ = [
    "FEW_SHOT",
    "KNN",
    "MSP",
    "REFERENCE",
    "SCORERS",
    "SIRC",
    "SSD",
    "Doctor",
    "Energy",
    "Entropy",
    "FewShotKNN",
    "FewShotKNNS",
    "Mahalanobis",
    "MaxLogit",
    "NotFittedDetectorError",
    "OpenSetDetector",
    "ReAct",
    "RelativeMahalanobis",
    "ViM",
    "name_of",
    "scorer",
]
