"""What methods that learn from few labelled pictures share: the loop's settings and its batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.data.few_shot import LabelledImages
from photopic.models.dual_encoder import DualEncoder
from photopic.models.preprocessing import Images, arrays

CROP_AREA = (0.5, 1.0)  # of the picture, that a random crop keeps
CROP_RATIO = (math.log(3 / 4), math.log(4 / 3))  # logarithm of width to height of a random crop


@dataclass(frozen=True, kw_only=True)
class Training(Config):
    """A loop over few pictures: what the configs of all methods that take steps share."""

    steps: Annotated[int, Ge(1)] = 200  # steps of learning; more takes longer
    lr: Annotated[float, Gt(0)] = 1e-2  # size of a step at first; it falls along a half cosine
    batch: Annotated[int, Ge(1)] = 32  # pictures a step, all where there are fewer; lower it when memory is short
    augment: bool = True  # crop pictures at random while learning, to half the area or more
    flip: bool = False  # also mirror them at random, where left and right do not matter
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: a half cosine without warm-up."""
        return self.lr * cosine(step, self.steps)


def cosine(step: int, steps: int) -> float:
    """The factor on the rate at a step: a half cosine from 1 to 0.

    Example:
        >>> [round(cosine(step, 4), 2) for step in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * step / steps))


class RunningShare:
    """The running mean of a share over about the last ten steps: nine parts of what it was, one part of what is new.

    Attributes:
        value: The mean, not a number before the first step; a checkpoint keeps it.

    Example:
        >>> share = RunningShare()
        >>> share.update(1.0), share.update(0.0)
        (1.0, 0.9)
    """

    def __init__(self) -> None:
        self.value = torch.full((), torch.nan, dtype=torch.float64)

    def update(self, now: float) -> float:
        """Add the share of a step; returns the mean."""
        mean = now if self.value.isnan() else 0.9 * self.value.item() + 0.1 * now
        self.value.fill_(mean)
        return mean


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


def batch_at(
    model: DualEncoder, data: LabelledImages, training: Training, step: int
) -> tuple[Int64[np.ndarray, " batch"], Float[Tensor, "batch 3 height width"], Int64[Tensor, " batch"]]:
    """The batch of a step: a function of seed and step alone, so that a loop goes on exactly where it stopped.

    Args:
        model: Prepares the pictures; the batch lies on its device.
        data: What to learn from.
        training: How large it is, whether to augment.
        step: From 0.

    Returns:
        Which pictures, their pixel values, their classes.

    Raises:
        DataError: If a picture is not 8-bit RGB.

    Example:
        >>> index, pixels, labels = batch_at(model, data, Training(), 0)  # doctest: +SKIP
    """
    index = drawn(len(data), training, step)
    labels = torch.from_numpy(data.labels[index]).to(model.device)
    return index, pixels_of(model, data, index, training, step), labels


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
    return model.preprocess(pictures_of(data.images, index, training, step))


def pictures_of(
    images: Images, index: Int64[np.ndarray, " batch"], training: Training, step: int
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Some pictures as a step sees them, before any model prepares them."""
    pictures = arrays([images[each] for each in index.tolist()])
    if training.augment or training.flip:
        rng = np.random.default_rng((training.seed, 2, step))
        pictures = [_augmented(picture, training, rng) for picture in pictures]
    return pictures


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
        # as random_resized_crop of the published loops, down to half the area
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(*CROP_RATIO))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))  # w h = area, w / h = ratio
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
            return left, top, left + wide, top + high
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
