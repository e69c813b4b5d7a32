"""The identities of the decomposition, of the attenuated process and of the way back to the larger space (spec 3(g))."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from photopic.core.errors import ModelError
from photopic.models.diffusion import Diffusion, Pyramid, Schedule, draw, draw_events, sampling_times
from photopic.models.diffusion.dimensionality import (
    DimensionalityConfig,
    attenuation,
    detail_deviations,
    detail_norms,
    dimensionality_varying,
    mean_gaps,
    pixel_share,
    subspace,
    turning_points,
)

LINEAR = Schedule.of_kind("linear")
KINDS = ("pool", "wavelet", "dct")
EYE = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)  # every picture of 8 x 8 with one pixel


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def matrix(operator) -> torch.Tensor:
    """Of a linear operator on pictures of 8 x 8."""
    return operator(EYE).flatten(1).mT


def projectors(pyramid: Pyramid) -> list[torch.Tensor]:
    kept = [matrix(lambda x, k=k: pyramid.up(pyramid.down(x, k), k)) for k in range(pyramid.levels + 1)]
    return [fine - coarse for fine, coarse in pairwise(kept)] + kept[-1:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_decomposition_is_orthogonal_with_the_right_ranks(kind: str) -> None:
    pyramid = Pyramid(2, kind)
    down = matrix(pyramid.down)
    assert torch.allclose(down @ down.mT, torch.eye(16, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(matrix(lambda x: pyramid.up(pyramid.down(x))), down.mT @ down, atol=1e-14)
    found = projectors(pyramid)
    for i, one in enumerate(found):
        for j, other in enumerate(found):
            assert torch.allclose(one @ other, one if i == j else torch.zeros_like(one), atol=1e-14)
    assert [int(torch.linalg.matrix_rank(each)) for each in found] == [48, 12, 4]
    assert torch.allclose(sum(found), torch.eye(64, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_weighing_multiplies_every_component_by_its_factor(kind: str) -> None:
    pyramid = Pyramid(2, kind)
    weighed = matrix(lambda x: pyramid.weigh(x, [torch.tensor(each, dtype=torch.float64) for each in (0.1, 0.5, 2.0)]))
    fine, middle, coarse = projectors(pyramid)
    assert torch.allclose(weighed, 0.1 * fine + 0.5 * middle + 2 * coarse, atol=1e-14)


def test_pooling_keeps_means_doubled_and_a_flat_picture_has_no_detail() -> None:
    x = randn(1, 3, 8, 8)
    pooled = Pyramid(2).down(x, 2)
    assert torch.allclose(pooled[0, 0, 0, 0], 4 * x[0, 0, :4, :4].mean(), atol=1e-14)
    for kind in KINDS:
        assert Pyramid(1, kind).detail(torch.ones(1, 1, 8, 8, dtype=torch.float64)).abs().max() < 1e-14


def test_attenuation_falls_geometrically_and_the_numbers_are_those_of_the_specification() -> None:
    process = dimensionality_varying(LINEAR)
    gamma = process.attenuation
    assert gamma is not None
    assert gamma[0, 0] == 1 and gamma[0, 300] == pytest.approx(0.01) and gamma[1, 600] == pytest.approx(0.01)
    assert gamma[0, 150] == pytest.approx(0.1) and (gamma[2] == 1).all()
    ratio = LINEAR.alphas[300] / LINEAR.sigmas[300]
    assert float(ratio * gamma[0, 300]) == pytest.approx(0.0081, abs=5e-5)
    assert float(ratio) == pytest.approx(0.806, abs=5e-4)
    assert pixel_share(process) == pytest.approx(0.40, abs=0.005)
    assert mean_gaps(process, (2.0, 2.0))[0] == pytest.approx(0.0081, abs=5e-5)


def test_the_steps_compose_to_the_process_and_always_add_noise() -> None:
    process = dimensionality_varying(LINEAR)
    signal, sigma = process._signal[:, :-1], LINEAR.sigmas
    ratios = signal[:, 1:] / signal[:, :-1]  # a
    assert torch.allclose(ratios.cumprod(1)[:, -1], signal[:, -1] / signal[:, 0], rtol=1e-12)
    fresh = sigma[1:].square() - ratios.square() * sigma[:-1].square()  # s^2
    assert (fresh > 0).all()
    assert torch.allclose(ratios.square() * sigma[:-1].square() + fresh, sigma[1:].square().expand(3, -1), atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timestep", [2, 150, 300])
def test_the_posterior_is_that_of_conditioning_one_gaussian(kind: str, timestep: int) -> None:
    """By brute force: the joint covariance of x_{t-1} and x_t given x_0, in all 64 dimensions."""
    process = dimensionality_varying(LINEAR, DimensionalityConfig(kind=kind))
    parts, clean, noisy = projectors(process.pyramid), randn(64), randn(64, seed=1)
    signal, sigma = process._signal, LINEAR.sigmas
    step = sum(row[timestep] / row[timestep - 1] * part for row, part in zip(signal, parts, strict=True))
    mean_before = sum(row[timestep - 1] * part for row, part in zip(signal, parts, strict=True)) @ clean
    before = sigma[timestep - 1].square() * torch.eye(64, dtype=torch.float64)
    now = sigma[timestep].square() * torch.eye(64, dtype=torch.float64)  # its covariance is isotropic by construction
    gain = before @ step.mT @ torch.linalg.inv(now)
    mean = mean_before + gain @ (noisy - step @ mean_before)
    covariance = before - gain @ step @ before
    found, spread = process.posterior(noisy.view(1, 1, 8, 8), clean.view(1, 1, 8, 8), timestep, timestep - 1)
    assert torch.allclose(found.flatten(), mean, atol=1e-10)
    assert torch.allclose(
        sum(each.square() * part for each, part in zip(spread, parts, strict=True)), covariance, atol=1e-12
    )


def test_without_attenuation_the_posterior_is_that_of_ddpm() -> None:
    fading = dimensionality_varying(LINEAR, DimensionalityConfig(lowest=1.0))
    noisy, clean = randn(2, 3, 8, 8), randn(2, 3, 8, 8, seed=1)
    for t in (1, 200, 300):
        ours, spread = fading.posterior(noisy, clean, t, t - 1)
        plain, spread_plain = Diffusion(LINEAR).posterior(noisy, clean, t, t - 1)
        assert torch.allclose(ours, plain, atol=1e-12)
        assert all(torch.allclose(each, spread_plain[0]) for each in spread)


@pytest.mark.parametrize("kind", KINDS)
def test_growing_keeps_what_was_there_and_adds_exactly_the_noise_that_is_missing(kind: str) -> None:
    process = dimensionality_varying(LINEAR, DimensionalityConfig(kind=kind))
    small, noise = randn(5, 3, 4, 4), randn(5, 3, 8, 8, seed=1)
    large = process.lifted(small, 300, noise, 1)
    assert (process.pyramid.down(large) - small).abs().max() < 5e-15  # a few roundings of numbers up to 4
    # covariance: noise of variance sigma^2 in the small space and unit noise for the detail give sigma^2 everywhere
    down = matrix(process.pyramid.down)
    sigma = LINEAR.sigmas[300]
    detail = matrix(lambda x: process.lifted(torch.zeros(64, 1, 4, 4, dtype=torch.float64), 300, x, 1))
    covariance = sigma.square() * down.mT @ down + detail @ detail.mT
    assert torch.allclose(covariance, sigma.square() * torch.eye(64, dtype=torch.float64), atol=1e-14)
    # the mean lacks lambda v
    clean = randn(1, 1, 8, 8)
    full, at = randn(1, 1, 8, 8, seed=2) * 0, torch.tensor([300])
    there = process.noised(clean, full, at, 0)
    back = process.lifted(process.noised(process.pyramid.down(clean), process.pyramid.down(full), at, 1), 300, full, 1)
    length = process._signal[0, 300] * process.pyramid.detail(clean).norm()
    assert (there - back).norm() == pytest.approx(float(length), rel=1e-9)


def test_the_smaller_state_is_the_halved_state() -> None:
    process = dimensionality_varying(LINEAR)
    clean, noise, at = randn(2, 3, 8, 8), randn(2, 3, 8, 8, seed=1), torch.tensor([700, 900])
    down = process.pyramid.down
    whole = process.noised(clean, noise, at, 0)
    assert torch.allclose(down(whole, 2), process.noised(down(clean, 2), down(noise, 2), at), atol=1e-14)


@pytest.mark.parametrize("prediction", ["epsilon", "velocity", "sample"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_prediction_gives_back_picture_and_noise_where_details_fade(prediction: str, kind: str) -> None:
    process = dimensionality_varying(LINEAR, DimensionalityConfig(kind=kind), prediction=prediction)
    for level, t in ((0, [0, 250]), (1, [350, 590]), (2, [700, 900])):
        at = torch.tensor(t)
        clean, noise = randn(2, 3, 8 >> level, 8 >> level), randn(2, 3, 8 >> level, 8 >> level, seed=1)
        assert process.levels(at).tolist() == [level, level]
        noisy = process.noised(clean, noise, at)
        target = process.target(clean, noise, at)
        assert torch.allclose(process.to_sample(target, noisy, at), clean, atol=1e-9)
        assert torch.allclose(process.to_noise(target, noisy, at), noise, atol=1e-9)


def test_no_turning_points_are_bit_equal_to_the_plain_process() -> None:
    none = dimensionality_varying(LINEAR, DimensionalityConfig(turning=()))
    plain = Diffusion(LINEAR)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.3 * x.roll(1, 2) + (t.to(x) / 1000).view(-1, 1, 1, 1)

    for solver in ("ddpm", "ddim", "dpm++"):
        one, other = (draw(each, network, (3, 8, 8), generators(2), solver=solver, steps=7) for each in (none, plain))
        assert torch.equal(one, other)


@pytest.mark.parametrize(("solver", "steps"), [("ddpm", 400), ("ddim", 400), ("dpm++", 60)])
def test_a_run_grows_at_the_turning_points_and_an_exact_denoiser_draws_the_data(solver: str, steps: int) -> None:
    """Gaussian data with a deviation of its own in every component: the best denoiser is linear."""
    process = dimensionality_varying(LINEAR, DimensionalityConfig(turning=(300, 600), lowest=0.003))
    deviations = [torch.tensor(each, dtype=torch.float64) for each in (0.2, 0.5, 1.0)]

    def best(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, sigma = process.scales(t, x)
        own = deviations[process.level(int(t[0])) :]
        return process.pyramid.weigh(
            x, [sigma / ((each * spread).square() + sigma.square()) for each, spread in zip(signal, own, strict=True)]
        )

    events = list(
        draw_events(process, best, (1, 8, 8), generators(150), solver=solver, steps=steps, dtype=torch.float64)
    )
    sizes = {each.timestep: each.clean.shape[-1] for each in events}
    assert all(size == 8 >> process.level(t) for t, size in sizes.items()) and set(sizes.values()) == {2, 4, 8}
    assert {300, 600} <= set(sizes)
    drawn = events[-1].state.flatten(1)
    for part, wanted, rank in zip(projectors(process.pyramid), deviations, (48, 12, 4), strict=True):
        found = ((drawn @ part).square().sum(1).mean() / rank).sqrt()
        assert float(found) == pytest.approx(float(wanted), rel=0.12)


def test_sampling_times_hold_every_turning_point_and_are_as_many_as_asked() -> None:
    process = dimensionality_varying(LINEAR)
    for steps in (3, 10, 50, 1000):
        times = sampling_times(process, steps)
        assert len(times) == steps == len(set(times)) and {300, 600} <= set(times) and times[0] == 999
    with pytest.raises(ModelError, match="turning point needs one"):
        sampling_times(process, 2)


def test_subspace_inserts_noise_with_the_deviation_of_the_details() -> None:
    pictures = randn(400, 3, 8, 8) * 0.3
    deviations = detail_deviations(pictures, Pyramid(2))
    assert deviations == pytest.approx((0.3, 0.3), rel=0.03)
    process = subspace(LINEAR, (300, 600), deviations)
    large = process.lifted(torch.zeros(400, 3, 4, 4, dtype=torch.float64), 300, randn(400, 3, 8, 8), 1)
    sigma, alpha = LINEAR.sigmas[300], LINEAR.alphas[300]
    wanted = (sigma.square() + (alpha * deviations[0]).square()).sqrt()
    norm = large.square().flatten(1).sum(1).mean().sqrt() / (0.75 * 192) ** 0.5
    assert float(norm) == pytest.approx(float(wanted), rel=0.02)
    assert process.attenuation is None and process.level(301) == 1


def test_turning_points_by_a_budget_are_the_earliest_that_keep_it() -> None:
    norms, budget = (10.0, 20.0), 0.05
    points = turning_points(LINEAR, norms, budget)
    gaps = mean_gaps(dimensionality_varying(LINEAR, DimensionalityConfig(turning=points)), norms)
    assert max(gaps) <= budget
    earlier = dimensionality_varying(LINEAR, DimensionalityConfig(turning=tuple(each - 1 for each in points)))
    assert min(mean_gaps(earlier, norms)) > budget
    with pytest.raises(ModelError, match="no timestep"):
        turning_points(LINEAR, (1e9,), 0.01)
    assert detail_norms(EYE[:1], Pyramid(1)) == pytest.approx((0.75**0.5,))


def test_the_bound_holds_for_the_total_variation_of_the_two_gaussians() -> None:
    process, norms = dimensionality_varying(LINEAR), (5.0, 8.0)
    for bound, norm, point, row in zip(
        mean_gaps(process, norms), norms, process.turning, process._signal, strict=False
    ):
        gap = float(row[point] * norm / LINEAR.sigmas[point])
        exact = float(torch.erf(torch.tensor(gap / 2 / 2**0.5, dtype=torch.float64)))  # 2 Phi(gap / 2) - 1
        assert 0 < exact <= bound


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: attenuation(1000, (300,), lowest=0.0), "lowest"),
        (lambda: attenuation(1000, (300,), start=300), "start"),
        (lambda: dimensionality_varying(LINEAR, DimensionalityConfig(turning=(600, 300))), "rising"),
        (lambda: replace(dimensionality_varying(LINEAR), attenuation=attenuation(1000, (300,))), "components"),
        (lambda: turning_points(LINEAR, (1.0,), 0.0), "budget"),
        (lambda: detail_norms(torch.zeros(1, 3, 9, 8), Pyramid(1)), "9 x 8"),
        (lambda: replace(dimensionality_varying(LINEAR), inserted=(0.1,)), "inserted"),
    ],
)
def test_bad_settings_are_named(make, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make()


def test_attenuation_that_rises_or_fades_the_coarsest_is_refused() -> None:
    process = dimensionality_varying(LINEAR)
    assert process.attenuation is not None
    rising, faded = process.attenuation.clone(), process.attenuation.clone()
    rising[0, 500] *= 2
    faded[2, 900:] = 0.5
    with pytest.raises(ModelError, match=r"component 0 rises .* at timestep 500"):
        replace(process, attenuation=rising)
    with pytest.raises(ModelError, match="coarsest"):
        replace(process, attenuation=faded)
