"""The time map, the probe of the slope, and the closed forms of the specification (spec 4(g))."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from photopic.core.errors import ModelError
from photopic.models.diffusion import Diffusion, Pyramid, Schedule, draw
from photopic.models.diffusion.dimensionality import dimensionality_varying
from photopic.models.diffusion.shared_timesteps import (
    SharedTimestepsConfig,
    continuous_time,
    shared,
    slope_report,
    slopes,
    time_map,
)

LINEAR = Schedule.of_kind("linear")
SIGMAS = LINEAR.sigmas


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def of_gaussian(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The best denoiser of unit Gaussian data: sigma_t x."""
    return SIGMAS[t].to(x).view(-1, 1, 1, 1) * x


def test_the_map_is_the_one_of_the_paper() -> None:
    found = time_map(1000)
    assert found[:20].tolist() == [0] * 20 and found[99] == 80 and found[100] == 100
    assert torch.equal(found[found], found)  # twice is once
    assert torch.equal(found[100:], torch.arange(100, 1000))
    assert sorted(set(found[:100].tolist())) == [0, 20, 40, 60, 80]


def test_as_many_intervals_as_timesteps_are_bit_equal_to_the_plain_process() -> None:
    assert torch.equal(time_map(1000, 100, 100), torch.arange(1000)) and torch.equal(
        time_map(1000, 0, 1), torch.arange(1000)
    )
    plain = Diffusion(LINEAR)
    same = shared(plain, SharedTimestepsConfig(100, 100))
    for solver in ("ddpm", "ddim", "dpm++"):
        one, other = (
            draw(each, of_gaussian, (1, 4, 4), generators(2), solver=solver, steps=30) for each in (plain, same)
        )
        assert torch.equal(one, other)
    apart = draw(shared(plain), of_gaussian, (1, 4, 4), generators(2), steps=100)
    assert not torch.equal(apart, draw(plain, of_gaussian, (1, 4, 4), generators(2), steps=100))


@pytest.mark.parametrize("intervals", [3, 7, 99])
def test_intervals_that_do_not_divide_start_at_whole_timesteps_and_cover_all(intervals: int) -> None:
    found = time_map(1000, 100, intervals)
    assert len(set(found[:100].tolist())) == intervals and (found <= torch.arange(1000)).all()
    assert torch.equal(found[found], found) and (found.diff() >= 0).all()


def test_real_time_agrees_with_the_table() -> None:
    t = torch.arange(1000, dtype=torch.float64)
    assert torch.equal(continuous_time(t, 100.0, 5), time_map(1000).double())


def test_inside_an_interval_the_slope_is_exactly_zero_and_there_are_as_many_jumps_as_intervals() -> None:
    process = shared(Diffusion(LINEAR))
    clean = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    curve = [each.value for each in slopes(process, of_gaussian, clean, range(100))]
    assert sum(value == 0 for value in curve[:99]) == 95
    assert [t for t, value in enumerate(curve) if value > 0] == [19, 39, 59, 79, 99]


def test_the_shared_slopes_sum_to_those_of_the_plain_process_at_its_ends() -> None:
    """Sharing moves the variation to the jumps: along one picture, telescoping."""
    plain, process = Diffusion(LINEAR), shared(Diffusion(LINEAR))
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def total(of: Diffusion) -> float:
        told = [of.input_time(torch.tensor([t])) for t in range(101)]
        steps = [(of_gaussian(x, after) - of_gaussian(x, now)).norm() for now, after in pairwise(told)]
        return float(sum(steps))

    assert total(process) == pytest.approx(total(plain), rel=1e-12)
    jumps = [each.value for each in slopes(process, of_gaussian, x.float(), [19, 39])]
    single = [each.value for each in slopes(plain, of_gaussian, x.float(), [19, 39])]
    assert all(jump > step for jump, step in zip(jumps, single, strict=True))


@pytest.mark.parametrize(("t", "wanted"), [(0, 0.268), (10, 0.182), (500, 0.023)])
def test_the_slope_of_unit_gaussian_data_is_its_closed_form(t: int, wanted: float) -> None:
    dimensions = 3 * 32 * 32
    norm = math.sqrt(2) * math.exp(math.lgamma((dimensions + 1) / 2) - math.lgamma(dimensions / 2))
    closed = norm * float(SIGMAS[t + 1] - SIGMAS[t])
    clean = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (found,) = slopes(Diffusion(LINEAR), of_gaussian, clean, [t])
    assert closed == pytest.approx(wanted, abs=6e-4) and found.value == pytest.approx(closed, rel=5e-3)
    assert len(found.lengths) == 200


@pytest.mark.parametrize(("t", "wanted"), [(0, 18.1), (1, 12.1), (2, 9.3), (99, 0.50), (500, 0.024)])
def test_the_slope_of_a_single_point_is_its_closed_form(t: int, wanted: float) -> None:
    """All data at one picture: the best denoiser is (x - alpha c) / sigma."""
    centre = torch.full((1, 3, 32, 32), 0.02, dtype=torch.float64)

    def best(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (each[at].view(-1, 1, 1, 1) for each in (LINEAR.alphas, SIGMAS))
        return (x - alpha * centre) / sigma

    (found,) = slopes(Diffusion(LINEAR), best, centre.expand(100, -1, -1, -1), [t])
    closed = 3072**0.5 * abs(1 - float(SIGMAS[t] / SIGMAS[t + 1]))
    assert found.value == pytest.approx(closed, rel=0.02) and found.value == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize(("intervals", "wanted"), [(1, 8.0e-3), (2, 2.0e-3), (5, 3.3e-4), (10, 8.2e-5), (100, 0.0)])
def test_what_sharing_costs_the_best_denoiser_of_gaussian_data(intervals: int, wanted: float) -> None:
    """Within an interval the best shared factor is the mean of sigma_t; the loss above the best is its variance."""
    told = time_map(1000, 100, intervals)[:100]
    excess = torch.stack([SIGMAS[:100][told == start].var(correction=0) for start in told])
    assert float(excess.mean()) == pytest.approx(wanted, rel=0.03, abs=1e-12)


def test_the_report_is_the_curve_and_a_turning_point_is_not_crossed() -> None:
    clean = torch.zeros(2, 1, 8, 8)
    report = slope_report(Diffusion(LINEAR), slopes(Diffusion(LINEAR), of_gaussian, clean, [0, 5]))
    assert [row["timestep"] for row in report.rows] == [0, 5] and report.values["largest"] == max(
        row["K"] for row in report.rows
    )
    fading = dimensionality_varying(LINEAR)
    assert next(slopes(fading, of_gaussian, clean, [700])).value > 0
    with pytest.raises(ModelError, match="turning point"):
        list(slopes(fading, of_gaussian, clean, [300]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: time_map(1000, 1001), "end"),
        (lambda: time_map(1000, 100, 101), "intervals"),
        (lambda: time_map(1000, 100, 0), "intervals"),
        (lambda: list(slopes(Diffusion(LINEAR), of_gaussian, torch.zeros(1, 1, 2, 2), [999])), "999"),
        (lambda: list(slopes(Diffusion(LINEAR), of_gaussian, torch.zeros(1, 1, 2, 2), [5], apart=0)), "different"),
        (lambda: continuous_time(torch.zeros(1), 0.0), "above 0"),
    ],
)
def test_bad_settings_are_named(make, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make()


def test_both_changes_go_together() -> None:
    process = shared(dimensionality_varying(LINEAR))
    assert process.pyramid == Pyramid(2) and process.input_time(torch.tensor([19, 350])).tolist() == [0, 350]
    assert draw(process, of_gaussian, (1, 8, 8), generators(1), steps=10).shape == (1, 1, 8, 8)
