"""Spectral noise: the power follows the gain in one, two and three dimensions, and the strongest values are exactly as many."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.core.numerics.spectral_noise import gaussian_gain, power_gain, spectral_noise, strongest
from photopic.metrics.radial_spectrum import radial_spectrum


@pytest.mark.parametrize("shape", [(4096,), (48, 64), (16, 16, 16)])
def test_white_noise_has_variance_one_in_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    noise = spectral_noise(shape, np.ones_like, np.random.default_rng(0))
    assert noise.shape == shape and abs(noise.var() - 1) < 0.06


@pytest.mark.parametrize("decay", [1.0, 3.0])
def test_the_radial_spectrum_of_a_power_law_has_slope_minus_two_decay(decay: float) -> None:
    rng = np.random.default_rng(1)
    noise = np.stack([spectral_noise((64, 64), power_gain(decay, 64), rng) for _ in range(300)])[..., None]
    power = radial_spectrum(noise)
    frequencies = np.arange(3, 33)  # below, rings hold few frequencies, whose mean is none of a power law
    slope = np.polyfit(np.log(frequencies), np.log(power[frequencies]), 1)[0]
    assert slope == pytest.approx(-2 * decay, abs=0.1)


def test_the_gain_of_a_blur_is_that_of_the_blur() -> None:
    from scipy.ndimage import gaussian_filter

    spike = np.zeros((64, 64))
    spike[0, 0] = 1
    blurred = np.fft.fft2(gaussian_filter(spike, 2.0, mode="wrap", truncate=8)).real
    along = np.fft.fftfreq(64)
    assert np.allclose(blurred, gaussian_gain(2.0)(np.hypot(along[:, None], along[None])), atol=1e-6)


def test_the_strongest_are_exactly_as_many_even_of_equal_values() -> None:
    assert strongest(np.zeros((3, 7)), 4).sum(1).tolist() == [4, 4, 4]
    values = np.random.default_rng(2).normal(size=(5, 9))
    chosen = strongest(values, 3)
    assert values[chosen].min() >= 0 and all(
        row[mask].min() > row[~mask].max() for row, mask in zip(values, chosen, strict=True)
    )
    with pytest.raises(DataError, match="expected 0 to 9 of them, found 10"):
        strongest(values, 10)
