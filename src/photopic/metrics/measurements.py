"""Named measurements of pictures, differentiable: what an edit shall change, and what it is watched for changing besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.errors import DataError

Measurement = Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, " n"]]
RGB = ("red", "green", "blue")
Property = Literal["brightness", "red", "green", "blue", "colourfulness", "contrast", "sharpness"]
NAMES: tuple[str, ...] = get_args(Property)


def measurement(name: str, mask: Bool[Tensor, "h w"] | None = None) -> Measurement:
    """A measurement of pictures of -1 to 1, over a region or the whole.

    Args:
        name: ``brightness``, ``red``, ``green`` and ``blue`` are means, -1 to 1; ``colourfulness`` is the mean spread of a pixel's
            channels, ``contrast`` the spread of grey values, ``sharpness`` their mean difference to the next pixel.
        mask: Where; None: everywhere.

    Raises:
        DataError: If there is none of that name.

    Example:
        >>> measurement("red")(torch.ones(1, 3, 4, 4)).item()
        1.0
    """
    if name not in NAMES:
        raise DataError(f"measurement: expected one of {', '.join(NAMES)}, found {name!r}")

    def measured(pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        weights = torch.ones(pictures.shape[-2:], dtype=pictures.dtype, device=pictures.device)
        weights = weights if mask is None else mask.to(weights)

        def mean(values: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
            return (values * weights).sum((1, 2)) / weights.sum()

        grey = pictures.mean(1)
        if name == "brightness":
            return mean(grey)
        if name in RGB:
            return mean(pictures[:, RGB.index(name)])
        if name == "colourfulness":
            return mean((pictures - grey[:, None]).square().mean(1))
        if name == "contrast":
            return mean((grey - mean(grey)[:, None, None]).square())
        return mean((grey - grey.roll(1, 2)).abs() + (grey - grey.roll(1, 1)).abs())

    return measured
