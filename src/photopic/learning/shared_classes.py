"""Several classifiers on the same pictures: the classes they share, and which of them each picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from photopic.core.errors import DataError, ModelError
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.models.classifier import Classifier


def class_order(model: Classifier, other: Classifier) -> list[int]:
    """Where the other classifier has each class of the first, so that ``logits[:, order]`` are in the first's order.

    Raises:
        ModelError: If they do not have the same classes; the message names one.

    Example:
        >>> class_order(model, other)  # doctest: +SKIP
        [1, 0]
    """
    apart = sorted(set(model.labels) ^ set(other.labels))
    if apart:
        owner = model if apart[0] in model.labels else other
        raise ModelError(
            f"{other.name}: expected the {len(model.labels)} classes of {model.name}, found {len(other.labels)}; only "
            f"{owner.name} has {apart[0]!r}: name two classifiers of the same classes"
        )
    return other.class_indices(model.labels)


def shown_classes(
    data: ClassFolder | LabelledImages, names: Sequence[str]
) -> tuple[Any, Int64[np.ndarray, " n"] | None]:
    """The pictures, and the class of each as an index of the names; None where pictures are in no sub-folders.

    Raises:
        DataError: If there is no picture, or one shows no class of these.

    Example:
        >>> data = LabelledImages(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), ("mug", "bear"))
        >>> shown_classes(data, ["bear", "fox", "mug"])[1]
        array([2, 0])
    """
    if not len(data):
        raise DataError("pictures: expected one or more, found none")
    if isinstance(data, ClassFolder):
        found = data.labels(names)
        return data, None if found is None else np.array(found, np.int64)
    unknown = [name for name in data.names if name not in names]
    if unknown:
        raise DataError(
            f"pictures: expected classes that the model names, found {unknown[0]!r}; rename or leave it out"
        )
    return data.images, np.array([list(names).index(name) for name in data.names], np.int64)[data.labels]
