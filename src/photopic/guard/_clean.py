"""What is checked of the clean pictures a guard is fitted on: that the classifier answers in logits and knows their classes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest

from photopic.core.errors import DataError, ModelError
from photopic.data.pixels import as_array
from photopic.guard.guardfile import GuardFileError
from photopic.models.classifier import Classifier

CHANCE = 0.01  # how likely guessing names as many right, above which the labels are taken to be others
POOR = 0.5  # share named right below which a word is said


def check_answers(
    model: Classifier, logits: Float[np.ndarray, "n classes"], truth: Int[np.ndarray, " n"] | None
) -> None:
    """Refuse what no guard can be fitted to.

    Args:
        model: The classifier.
        logits: Its plain answers on the clean pictures.
        truth: Their classes, where they are known.

    Raises:
        ModelError: If the answers are probabilities: a softmax in the network hides how sure it is.
        DataError: If guessing would name as many right: other labels, another preprocessing, another model.

    Warns:
        UserWarning: If fewer than half are named right.

    Example:
        >>> check_answers(model, logits, truth)  # doctest: +SKIP
    """
    if logits.shape[1] > 1 and (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3):
        raise ModelError(
            f"{model.name}: expected logits, found probabilities that add up to 1; leave the softmax out of the network"
        )
    if truth is None:
        return
    right, count = int((logits.argmax(1) == truth).sum()), len(truth)
    if binomtest(right, count, 1 / logits.shape[1], alternative="greater").pvalue > CHANCE:
        raise DataError(
            f"clean pictures: {model.name} names {right} of {count} right, as many as guessing; check that labels and "
            "preprocessing are the model's"
        )
    if right < POOR * count:
        warnings.warn(f"{model.name} names only {right} of {count} clean pictures right", stacklevel=3)


def tell_copies(images: Any) -> None:
    """Say how many clean pictures are copies of others: the rate of false positives counts each once.

    Warns:
        UserWarning: If there are copies.
    """
    seen = {hashlib.sha256(as_array(each).data).digest() for each in images}
    if len(seen) < len(images):
        warnings.warn(
            f"{len(images) - len(seen)} of {len(images)} clean pictures are copies of others; the rate of false positives is "
            "that of different ones, leave the copies out",
            stacklevel=3,
        )


def shape_of(image: Any) -> tuple[int, ...]:
    """(height, width, 3) of a PIL image, which is read so; of an array its own shape, whatever its layout.

    Example:
        >>> shape_of(np.zeros((3, 5, 6), np.uint8))
        (3, 5, 6)
    """
    return (image.height, image.width, 3) if hasattr(image, "getpixel") else tuple(map(int, image.shape))


def reading_of(model: Classifier, shape: Sequence[int] = (1, 1, 3)) -> dict[str, Any]:
    """How a classifier reads pictures and calls classes, as JSON values: of the labels a hash, of a picture some pixel values.

    Args:
        model: The classifier.
        shape: Of the pictures it gets, as ``shape_of`` gives it: a preprocessing of one's own may take one layout only.
    """
    height, width = 40, 56  # larger, smaller and of another shape than what most networks read
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 5, columns * 4, (rows * columns) % 251], -1).astype(np.uint8)
    if len(shape) == 2:  # gray
        picture = picture[:, :, 0]
    elif shape[2] not in (1, 3):  # channels first
        picture = picture.transpose(2, 0, 1)[: shape[0]]
    else:
        picture = picture[:, :, : shape[2]]
    pixels = model.preprocess([picture]).float().flatten().cpu().numpy()
    chosen = pixels[np.linspace(0, len(pixels) - 1, 16).round().astype(int)]
    labels = hashlib.sha256("\n".join(model.labels).encode()).hexdigest()
    return {"labels": labels, "pixels": [round(float(each), 6) for each in chosen], "size": len(pixels)}


def check_reading(name: str, saved: Mapping[str, Any], model: Classifier, shape: Sequence[int] = (1, 1, 3)) -> None:
    """Refuse a model that reads pictures otherwise, or calls classes otherwise, than the one a guard was fitted on.

    Raises:
        GuardFileError: Says which of the two.
    """
    found = reading_of(model, shape)
    if saved["labels"] != found["labels"]:
        raise GuardFileError(f"{name}: fitted with other class names than {model.name} has; give it the same labels")
    if saved["size"] != found["size"] or not np.allclose(saved["pixels"], found["pixels"], atol=1e-3):
        raise GuardFileError(
            f"{name}: fitted with another preprocessing than {model.name} has; give it the same size, mean and scale"
        )
