"""A wave has its power at its frequency, noise is flat, blurring takes high frequencies away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from photopic.core.errors import DataError
from photopic.metrics.radial_spectrum import radial_spectrum

NOISE = np.random.default_rng(0).normal(size=(40, 32, 32, 3))


@pytest.mark.parametrize("cycles", [1, 5, 16])
def test_a_wave_is_at_its_frequency(cycles: int) -> None:
    wave = np.cos(2 * np.pi * cycles * np.arange(32) / 32)
    found = radial_spectrum(np.broadcast_to(wave[None, :, None, None], (2, 32, 32, 3)))
    assert len(found) == 17 and found.argmax() == cycles and np.delete(found, cycles).max() < 1e-20


def test_all_power_is_there_and_the_mean_is_at_zero() -> None:
    assert radial_spectrum(NOISE + 3)[0] == pytest.approx((((NOISE + 3).mean((1, 2))) ** 2).mean() * 32 * 32)
    assert radial_spectrum(np.full((1, 8, 8, 3), 255, np.uint8))[0] == pytest.approx(64)


def test_blurred_pictures_have_less_at_high_frequencies() -> None:
    soft = gaussian_filter(NOISE, (0, 1.5, 1.5, 0))
    kept = radial_spectrum(soft) / radial_spectrum(NOISE)
    assert kept[1] > 0.7 and (kept[9:] < 0.02).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="square"):
        radial_spectrum(np.zeros((1, 8, 9, 3)))
