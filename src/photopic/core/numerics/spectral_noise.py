"""Noise of a chosen spectrum: white noise times a gain at each spatial frequency, and the exact share of its strongest values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from photopic.core.errors import DataError

# from frequencies in cycles a sample, 0 at the mean, to what the amplitude is multiplied with
Gain: TypeAlias = Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]]


def spectral_noise(shape: Sequence[int], gain: Gain, rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Periodic Gaussian noise in any number of dimensions whose power at frequency f is the square of the gain at f.

    Args:
        shape: Samples along each axis.
        gain: Of the amplitude; 1 everywhere is white noise of variance 1.
        rng: What is drawn with.

    Returns:
        The real part of the inverse Fourier transform of complex Gaussian noise times the gain.

    Example:
        >>> noise = spectral_noise((64, 64), lambda frequency: np.ones_like(frequency), np.random.default_rng(0))
        >>> noise.shape, bool(abs(noise.std() - 1) < 0.05)
        ((64, 64), True)
    """
    axes = np.meshgrid(*(np.fft.fftfreq(side) for side in shape), indexing="ij")
    frequency = np.sqrt(sum(np.square(each) for each in axes))
    # the real part has half the power of the complex field at every frequency alike, those without a partner included
    field = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return np.fft.ifftn(gain(frequency) * field, norm="ortho").real


def gaussian_gain(sigma: float) -> Gain:
    """Of a Gaussian blur of a standard deviation in samples: exp(-2 (pi sigma f)^2)."""
    return lambda frequency: np.exp(-2 * np.square(np.pi * sigma * frequency))


def power_gain(decay: float, longest: int) -> Gain:
    """Of 1 / f^decay; below one cycle in ``longest`` samples it stays at its value there, so that the mean has one too."""
    return lambda frequency: np.maximum(frequency, 1 / longest) ** -decay


def strongest(values: Float[np.ndarray, "*rows n"], count: int) -> Bool[np.ndarray, "*rows n"]:
    """Where the largest values of each row are: exactly ``count`` of them.

    Raises:
        DataError: If a row has fewer.

    Example:
        >>> strongest(np.array([[0.1, 0.9, 0.5]]), 2).tolist()
        [[False, True, True]]
    """
    if not 0 <= count <= values.shape[-1]:
        raise DataError(f"strongest values: expected 0 to {values.shape[-1]} of them, found {count}")
    chosen = np.zeros(values.shape, bool)
    np.put_along_axis(chosen, np.argsort(-values, axis=-1, kind="stable")[..., :count], True, axis=-1)
    return chosen
