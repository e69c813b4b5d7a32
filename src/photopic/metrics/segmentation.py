"""How well the class of every pixel was found: mean intersection over union."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from photopic.core.errors import DataError


def class_ious(
    predicted: Int64[np.ndarray, "..."], truth: Int64[np.ndarray, "..."], classes: int
) -> Float[np.ndarray, " classes"]:
    """Intersection over union of each class over all pixels together; nan for one that is in neither.

    Args:
        predicted: The class of each pixel, 0 to ``classes`` less one.
        truth: The same, of the same shape.
        classes: How many there are.

    Raises:
        DataError: If shapes differ.

    Example:
        >>> class_ious(np.array([0, 1, 1]), np.array([0, 0, 1]), 3).tolist()
        [0.5, 0.5, nan]
    """
    if predicted.shape != truth.shape:
        raise DataError(f"segmentation: expected the shape of the truth, {truth.shape}, found {predicted.shape}")
    pairs = np.bincount((truth * classes + predicted).ravel(), minlength=classes**2).reshape(classes, classes)
    union = pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    return np.where(union > 0, pairs.diagonal() / np.maximum(union, 1), np.nan)


def mean_iou(predicted: Int64[np.ndarray, "..."], truth: Int64[np.ndarray, "..."], classes: int) -> float:
    """The mean of ``class_ious`` over the classes that there are; raises as it.

    Example:
        >>> mean_iou(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
        0.5
    """
    return float(np.nanmean(class_ious(predicted, truth, classes)))
