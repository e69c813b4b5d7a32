"""Radial power spectrum of pictures: how much energy lies at which spatial frequency."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from photopic.core.errors import DataError


def radial_spectrum(images: Num[np.ndarray, "n h w c"]) -> Float[np.ndarray, " frequencies"]:
    """Mean power at 0, 1, 2, ... cycles a picture, up to half the side, over all pictures, channels and directions.

    Each picture is scaled to 0..1 if it is of 8 bits; its mean is at frequency 0. The discrete Fourier transform is orthonormal, so
    that white noise of variance v has power v at every frequency.

    Args:
        images: Square pictures.

    Raises:
        DataError: If they are not square, or there is none.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(50, 32, 32, 3))
        >>> bool(np.abs(radial_spectrum(noise)[1:] - 1).max() < 0.1)
        True
    """
    if not len(images) or images.shape[1] != images.shape[2]:
        raise DataError(f"pictures: expected one or more square ones (n, side, side, channels), found {images.shape}")
    side = images.shape[1]
    values = images / 255 if images.dtype == np.uint8 else np.asarray(images, np.float64)
    power = np.abs(np.fft.fft2(values, axes=(1, 2), norm="ortho")) ** 2
    along = np.fft.fftfreq(side) * side
    radius = np.rint(np.hypot(along[:, None], along[None])).astype(int)
    mean = power.mean(axis=(0, 3))
    return np.array([mean[radius == each].mean() for each in range(side // 2 + 1)])
