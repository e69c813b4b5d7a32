"""How well pixels are named: intersection over union by class."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8


def class_iou(
    predicted: UInt8[np.ndarray, "n height width"], masks: UInt8[np.ndarray, "n height width"], classes: int
) -> Float[np.ndarray, " classes"]:
    """Intersection over union of each class over all pixels together; not a number for a class that is nowhere.

    Args:
        predicted: Classes from 0.
        masks: True classes.
        classes: How many there are.

    Example:
        >>> class_iou(np.array([[[0, 1]]], np.uint8), np.array([[[0, 0]]], np.uint8), 2)
        array([0.5, 0. ])
    """
    pairs = np.bincount(masks.astype(np.int64).ravel() * classes + predicted.ravel(), minlength=classes**2)
    table = pairs.reshape(classes, classes)  # (true, predicted)
    union = table.sum(0) + table.sum(1) - table.diagonal()
    with np.errstate(invalid="ignore"):
        return np.asarray(table.diagonal() / union)
