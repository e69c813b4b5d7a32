"""Few levels: the best ones, ascending, each value at its nearest, and nothing changed that is few already."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from photopic.core.numerics.quantise import fit_levels, level_codes, to_levels

CENTRES = torch.tensor([-3.0, -1.0, 0.5, 4.0])


def clustered(sizes: tuple[int, ...] = (50, 50, 50, 50)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = CENTRES.repeat_interleave(torch.tensor(sizes))
    return (values + 0.01 * torch.randn(len(values), generator=generator))[
        torch.randperm(len(values), generator=generator)
    ]


def test_levels_are_the_means_of_the_clusters() -> None:
    torch.testing.assert_close(fit_levels(clustered()), CENTRES, atol=0.01, rtol=0)


def test_every_level_is_the_mean_of_the_values_nearest_to_it() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    for count in (2, 4, 16):
        fitted = fit_levels(values, count)
        assert len(fitted) == count and (fitted.diff() > 0).all()
        nearest = (values[:, None] - fitted).abs().argmin(1)  # by hand
        assert torch.equal(nearest, level_codes(values, fitted))
        if count == 2:  # four and sixteen may stop at the last round, a little before the fixed point
            means = torch.stack([values[nearest == level].mean() for level in range(count)])
            torch.testing.assert_close(fitted, means)


def test_no_split_in_two_is_better() -> None:
    values = torch.tensor([0.0, 0.2, 0.3, 2.0, 2.5, 2.6, 2.7])
    errors = [
        sum(float((part - part.mean()).square().sum()) for part in values.tensor_split([at]))
        for at in range(1, len(values))
    ]
    assert float((to_levels(values, 2) - values).square().sum()) == pytest.approx(min(errors), rel=1e-5)


def test_order_does_not_matter_and_rounding_twice_is_rounding_once() -> None:
    values = clustered((10, 90, 3, 40))
    rounded = to_levels(values)
    assert len(rounded.unique()) <= 4 and torch.equal(to_levels(rounded), rounded)
    assert torch.equal(to_levels(values.flip(0)), rounded.flip(0))


@pytest.mark.parametrize("values", [[], [0.1], [3.0, -1.0, 3.0, 0.25, 7.0]])
def test_few_distinct_values_stay_as_they_are(values: list[float]) -> None:
    assert torch.equal(to_levels(torch.tensor(values)), torch.tensor(values))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_left_for_the_caller_to_refuse(bad: float) -> None:
    values = torch.tensor([*range(9), bad])
    assert torch.equal(to_levels(values)[:9], values[:9]) and not torch.isfinite(to_levels(values)).all()


def test_a_tie_goes_to_the_lower_level() -> None:
    assert level_codes(torch.tensor([0.5, 1.5, 2.5]), torch.arange(4.0)).tolist() == [0, 1, 2]


def test_levels_are_the_same_from_half_precision() -> None:
    values = torch.tensor([*itertools.chain([0.0, 0.5], [4.0, 4.5], [8.0, 8.5], [16.0, 17.0])])
    assert torch.equal(to_levels(values.half()), to_levels(values))
    assert to_levels(values.half()).dtype == torch.float32
