"""What methods that learn from few labelled pictures share: the loop's settings, its batches, what a step reports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import Tuned
from photopic.models.dual_encoder import DualEncoder
from photopic.models.preprocessing import arrays

CROP_AREA = (0.5, 1.0)  # of the picture, that a random crop keeps
CROP_RATIO = (math.log(3 / 4), math.log(4 / 3))  # logarithm of width to height of a random crop


@dataclass(frozen=True, kw_only=True)
class Training:
    """A loop over few pictures; the rate falls along a half cosine without warm-up."""

    steps: int  # of the optimizer
    lr: float  # at the first step
    batch: int = 32  # pictures a step; all of them where there are fewer
    augment: bool = True  # random crops of half the area or more, resized
    flip: bool = False  # also mirror half of the pictures; off since many things have a direction
    seed: int = 0  # of the order and the crops

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name}: expected {least} or more, found {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise DataError(f"lr: expected a number above 0, found {self.lr}")


@dataclass(frozen=True)
class Step:
    """One event of a few-shot loop; the last one carries the result.

    Attributes:
        stage: ``preparing``, ``tuning`` or ``done``.
        step: Steps done.
        steps: Steps in all.
        loss: Of the step, 0 where there is none yet.
        accuracy: Share of the training pictures named right, running mean over about the last ten steps, 0 to 1.
        share: Share of the weights changed so far, for methods that choose; 0 otherwise.
        elapsed_s: Seconds since this process began.
        eta_s: Seconds still to go by the pace so far.
        warning: One line the user should see, or empty.
        edit: What was learnt, with the last event only, where it is an edit.
        tuned: The classifier that came of it, with the last event only.
    """

    stage: str
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    share: float = 0.0
    elapsed_s: float = 0.0
    eta_s: float = 0.0
    warning: str = ""
    edit: Edit | None = None
    tuned: Tuned | None = None


def cosine(step: int, steps: int) -> float:
    """The factor on the rate at a step: a half cosine from 1 to 0.

    Example:
        >>> [round(cosine(step, 4), 2) for step in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def running(before: float | None, now: float) -> float:
    """The running mean of a share: nine parts of what it was, one part of what is new."""
    return now if before is None else 0.9 * before + 0.1 * now


def check_trainable(data: LabelledImages) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        DataError: If there is one class only, or a class without pictures.
    """
    if len(data.names) < 2:
        raise DataError(f"classes: expected two or more to tell apart, found only {''.join(data.names) or 'none'}")
    for name, count in zip(data.names, data.counts, strict=True):
        if not count:
            raise DataError(
                f"class {name}: expected one picture or more to learn from, found none; add some or leave it out"
            )


def batches(
    model: DualEncoder, data: LabelledImages, training: Training, *, start: int = 0
) -> Iterator[tuple[int, Float[Tensor, "n 3 height width"], Int64[Tensor, " n"]]]:
    """The batches of a loop, each a function of seed and step alone, so that a loop goes on exactly where it stopped.

    Args:
        model: Prepares the pictures; batches lie on its device.
        data: What to learn from.
        training: How many, how large, whether to augment.
        start: The step to go on from.

    Yields:
        Number of the step, pixel values, classes.

    Raises:
        DataError: As ``check_trainable``, and if a picture is not 8-bit RGB.

    Example:
        >>> for step, pixels, labels in batches(model, data, Training(steps=100, lr=1e-3)): ...  # doctest: +SKIP
    """
    check_trainable(data)
    for step in range(start, training.steps):
        index = drawn(len(data), training, step)
        labels = torch.from_numpy(data.labels[index]).to(model.device)
        yield step, pixels_of(model, data, index, training, step), labels


def drawn(count: int, training: Training, step: int) -> Int64[np.ndarray, " batch"]:
    """The pictures of a step: all in random order, then all in another, cut into batches of one size.

    Example:
        >>> training = Training(steps=9, lr=1.0, batch=2)
        >>> sorted(np.concatenate([drawn(4, training, step) for step in (0, 1)]).tolist())
        [0, 1, 2, 3]
    """
    size = min(training.batch, count)
    places = np.arange(step * size, (step + 1) * size)
    orders = {
        epoch: np.random.default_rng((training.seed, 1, epoch)).permutation(count)
        for epoch in range(int(places[0]) // count, int(places[-1]) // count + 1)
    }
    return np.array([orders[place // count][place % count] for place in places.tolist()], np.int64)


def epoch_of(count: int, training: Training, step: int) -> int:
    """The number of times everything was seen before a step."""
    return step * min(training.batch, count) // count


def epochs(count: int, training: Training) -> int:
    """How many times everything is seen, the last one perhaps in part."""
    return epoch_of(count, training, training.steps - 1) + 1


def pixels_of(
    model: DualEncoder, data: LabelledImages, index: Int64[np.ndarray, " batch"], training: Training, step: int
) -> Float[Tensor, "batch 3 height width"]:
    """Pixel values of some pictures as a step sees them."""
    pictures = arrays([data.images[each] for each in index.tolist()])
    if training.augment or training.flip:
        rng = np.random.default_rng((training.seed, 2, step))
        pictures = [_augmented(picture, training, rng) for picture in pictures]
    return model.preprocess(pictures)


def _augmented(picture: np.ndarray, training: Training, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    if training.augment:
        left, top, right, bottom = _crop(height, width, rng)
        side = min(height, width)
        image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, (left, top, right, bottom))
        picture = np.asarray(image)
    return picture[:, ::-1] if training.flip and rng.random() < 0.5 else picture


def _crop(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of a random share of the area and a random shape that fits; the largest square in the middle where none does."""
    for _ in range(10):
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(*CROP_RATIO))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
            return left, top, left + wide, top + high
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
