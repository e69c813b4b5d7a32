"""The colours of a picture as a smoothed histogram over 156 fixed ones, compared in CIELab.

Paper: Composer (arXiv:2302.09778); colours as rayleigh has them, whose palette the authors' later code (VideoComposer) uses. Each
pixel counts for its nearest colour; the histogram is then smoothed once. rayleigh's own default smooths per pixel, another vector.
"""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from skimage.color import rgb2lab

HUES = (0.0, 0.0833, 0.166, 0.25, 0.333, 0.5, 0.56333, 0.666, 0.73, 0.803, 0.916)  # turns
ROWS = (  # saturation, value
    *((step / 6, 1.0) for step in range(1, 6)),
    (1.0, 1.0),
    *((1.0, value) for value in (0.84, 0.68, 0.52, 0.36)),
    *((0.4, value) for value in (0.84, 0.68, 0.52)),
)
GREYS = 13  # from white to black
BINS = len(HUES) * len(ROWS) + GREYS  # 156
SIGMA = 10.0  # of the smoothing, in CIELab units
FLOOR = 1e-5  # smaller entries are 0


@cache
def colours() -> Float[np.ndarray, "156 3"]:
    """The colours in RGB, 0 to 1: all rows of the first hue, then of the next, and the greys from white to black.

    Example:
        >>> colours()[[5, -1]].tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    hued = [colorsys.hsv_to_rgb(hue, *row) for hue in HUES for row in ROWS]
    return np.array(hued + [(grey,) * 3 for grey in np.linspace(1, 0, GREYS)])


@cache
def colours_lab() -> Float[np.ndarray, "156 3"]:
    """The same in CIELab (D65, 2 degrees)."""
    found: np.ndarray = rgb2lab(colours())
    return found


@cache
def smoothing() -> Float[np.ndarray, "156 156"]:
    """What each entry takes of which: exp(-|Lab_i - Lab_j|^2 / (2 sigma^2)), each row a sum of 1."""
    lab = colours_lab()
    near = np.exp(-np.square(lab[:, None] - lab).sum(-1) / (2 * SIGMA**2))
    found: np.ndarray = near / near.sum(1, keepdims=True)
    return found


def nearest_colours(image: UInt8[np.ndarray, "h w 3"]) -> Int64[np.ndarray, " 156"]:
    """How many pixels are nearest to each colour, by Euclidean distance in CIELab.

    Example:
        >>> int(nearest_colours(np.full((2, 2, 3), 255, np.uint8)).argmax())
        143
    """
    red, green, blue = image.reshape(-1, 3).T.astype(np.int32)
    # pictures repeat their colours, and equal ones have one nearest
    packed, counts = np.unique((red << 16) | (green << 8) | blue, return_counts=True)
    rgb = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1) / 255
    lab = colours_lab()
    # |x - c|^2 less |x|^2, which is the same for all colours: one matrix product
    apart = (lab**2).sum(1) - 2 * rgb2lab(rgb) @ lab.T  # (colours of the picture, 156)
    return np.bincount(apart.argmin(1), weights=counts, minlength=BINS).astype(np.int64)


def palette(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, " 156"]:
    """The smoothed histogram of a picture's colours. Smoothing by rows does not keep the sum at 1.

    Args:
        image: RGB of any size.

    Example:
        >>> red = np.zeros((4, 4, 3), np.uint8) + np.uint8([255, 0, 0])
        >>> bool(np.allclose(palette(red), np.where(smoothing()[:, 5] < FLOOR, 0, smoothing()[:, 5])))
        True
    """
    share = nearest_colours(image) / (image.shape[0] * image.shape[1])
    smoothed = smoothing() @ share  # h <- W h
    return np.where(smoothed < FLOOR, 0, smoothed).astype(np.float32)
