"""The number of principal components of the features that a classifier's accuracy rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from photopic.core.errors import DataError

BLOCK = 1024  # samples at a time


def classification_dimension(
    features: Float[Tensor, "n width"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, "classes"],
    labels: Sequence[int] | None = None,
    *,
    keep: float = 0.95,
) -> dict[str, Any]:
    """The least k such that the head, fed with features projected on their first k components, keeps its accuracy.

    The components are eigenvectors of the features' centred covariance, largest eigenvalue first. ``centred`` restores the mean
    after projecting; ``uncentred`` projects through the origin, as the published code does.

    Args:
        features: What enters the head.
        weight: Of the head.
        bias: Of the head.
        labels: True classes; None counts agreement with the head's own predictions instead.
        keep: Share of the accuracy that must be kept, 0 to 1.

    Returns:
        ``centred`` and ``uncentred``: the dimension; ``width`` of the features; ``accuracy`` with all of them, ``judge``
        (``labels`` or ``own predictions``), ``keep``, ``samples``, and ``curve``: by variant the accuracy at k = 1, 2, ...

    Raises:
        DataError: If labels are not as many as features, none is predicted right, or features are not finite.

    Example:
        >>> features = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> features[:, :2] *= torch.tensor([15.0, 10.0])
        >>> classification_dimension(features, torch.eye(2, 8), torch.zeros(2))["centred"]
        2
    """
    if labels is not None and len(labels) != len(features):
        raise DataError(f"labels: expected one for each of {len(features)} images, found {len(labels)}")
    if not bool(features.isfinite().all()):
        raise DataError("features: expected finite numbers, found NaN or infinity; check the images and the model")
    features, weight, bias = features.double(), weight.double(), bias.double()
    predicted = (features @ weight.T + bias).argmax(1)  # (n, width) @ (width, classes)
    truth = predicted if labels is None else torch.as_tensor(labels)
    accuracy = float((predicted == truth).double().mean())
    if accuracy == 0:
        raise DataError("labels: the model predicts none of them; check that they are its classes, in its order")
    mean = features.mean(0)
    centred = features - mean
    # eigh puts the smallest eigenvalue first
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)  # (width, width)
    directions = weight @ components  # (classes, width): what one unit of a component adds to the logits
    curves = {
        "centred": _accuracies(centred @ components, directions, bias + weight @ mean, truth),
        "uncentred": _accuracies(features @ components, directions, bias, truth),
    }
    reached = {name: 1 + int((curve >= keep * accuracy - 1e-12).double().argmax()) for name, curve in curves.items()}
    return reached | {
        "width": features.shape[1],
        "accuracy": accuracy,
        "judge": "own predictions" if labels is None else "labels",
        "keep": keep,
        "samples": len(features),
        "curve": {name: curve.tolist() for name, curve in curves.items()},
    }


def _accuracies(
    coordinates: Float64[Tensor, "n width"],
    directions: Float64[Tensor, "classes width"],
    offset: Float64[Tensor, "classes"],
    truth: Int[Tensor, "n"],
) -> Float64[Tensor, "width"]:
    """Accuracy with the first 1, 2, ... coordinates."""
    right = torch.zeros(coordinates.shape[1], dtype=torch.float64)
    for block, wanted in zip(coordinates.split(BLOCK), truth.split(BLOCK), strict=True):
        logits = offset.repeat(len(block), 1)
        for k in range(coordinates.shape[1]):
            logits.addr_(block[:, k], directions[:, k])  # (samples, classes)
            right[k] += (logits.argmax(1) == wanted).sum()
    return right / len(coordinates)
