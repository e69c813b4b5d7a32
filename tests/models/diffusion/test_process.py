"""The plain process is the textbook's, diffusers' schedulers agree with it, and bad settings are named."""

from __future__ import annotations

import diffusers
import pytest
import torch

from photopic.core.errors import ModelError
from photopic.models.diffusion import Diffusion, Pyramid, Schedule, draw, draw_events, sampling_times

LINEAR = Schedule.of_kind("linear")
SHAPE = (3, 8, 8)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def toy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A network that looks at everything it is given."""
    return 0.3 * x.roll(1, 2) + 0.1 * x.square().clamp(max=1) + (t.to(x) / 1000).view(-1, 1, 1, 1)


@pytest.mark.parametrize("kind", ["linear", "scaled-linear", "quadratic", "cosine"])
def test_a_schedule_is_that_of_the_diffusers_scheduler_made_of_it(kind: str) -> None:
    schedule = Schedule.of_kind(kind)
    again = Schedule.of_scheduler(schedule.scheduler())
    assert torch.allclose(again.alphas, schedule.alphas, atol=1e-5)
    assert torch.allclose(schedule.alphas.square() + schedule.sigmas.square(), torch.ones(1000, dtype=torch.float64))


def test_the_schedules_are_those_of_diffusers() -> None:
    for kind, options in (
        ("linear", {}),
        ("scaled-linear", {"beta_schedule": "scaled_linear"}),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
    ):
        theirs = diffusers.DDPMScheduler(**options)
        assert torch.allclose(Schedule.of_kind(kind).alphas, theirs.alphas_cumprod.double().sqrt(), atol=2e-5), kind
    zero = diffusers.DDPMScheduler(rescale_betas_zero_snr=True)
    ours = Schedule.of_kind("linear", zero_terminal_snr=True)
    assert float(ours.alphas[-1]) == 0 and torch.allclose(ours.alphas, zero.alphas_cumprod.double().sqrt(), atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "velocity", "sample"])
def test_every_prediction_gives_back_the_picture_and_the_noise(prediction) -> None:
    process = Diffusion(LINEAR, prediction)
    clean, noise, t = randn(4, *SHAPE), randn(4, *SHAPE, seed=1), torch.tensor([0, 10, 500, 999])
    noisy = process.noised(clean, noise, t)
    target = process.target(clean, noise, t)
    assert torch.allclose(process.to_sample(target, noisy, t), clean, atol=1e-10)
    assert torch.allclose(process.to_noise(target, noisy, t), noise, atol=1e-10)


def test_without_levels_every_step_is_bit_equal_to_ddpm_written_out() -> None:
    process = Diffusion(LINEAR)
    clean, noise = randn(2, *SHAPE, dtype=torch.float32), randn(2, *SHAPE, seed=1, dtype=torch.float32)
    for t in (1, 400, 999):
        alpha, sigma = (float(each[t].float()) for each in (LINEAR.alphas, LINEAR.sigmas))
        noisy = alpha * clean + sigma * noise
        at = torch.tensor([t, t])
        assert torch.equal(process.noised(clean, noise, at), noisy)
        a, a_before = LINEAR.alphas[t], LINEAR.alphas[t - 1]
        s2, s2_before = LINEAR.sigmas[t].square(), LINEAR.sigmas[t - 1].square()
        ratio = a / a_before
        weight = ratio * s2_before / s2
        mean = (a_before - weight * a).float() * clean + weight.float() * noisy
        found, spread = process.posterior(noisy, clean, t, t - 1)
        assert torch.equal(found, mean)
        beta = 1 - ratio.square()
        assert float(spread[0].square()) == pytest.approx(float(beta * s2_before / s2), rel=1e-10)  # DDPM, eq. 7


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # diffusers' DPM-Solver with numpy 2.4
@pytest.mark.parametrize(("solver", "scheduler"), [("ddim", "DDIMScheduler"), ("dpm++", "DPMSolverMultistepScheduler")])
@pytest.mark.parametrize("prediction", ["epsilon", "velocity", "sample"])
def test_a_run_is_that_of_the_diffusers_scheduler(solver, scheduler, prediction) -> None:
    process = Diffusion(LINEAR, prediction)
    theirs = LINEAR.scheduler(scheduler, prediction)
    times = sampling_times(process, 8)
    theirs.set_timesteps(**({"timesteps": times} if solver == "dpm++" else {"num_inference_steps": 8}))
    state = torch.stack([torch.randn(SHAPE, generator=each, dtype=torch.float64) for each in generators(2)])
    for t in times:
        state = theirs.step(toy(state, torch.full((2,), t)), t, state, return_dict=False)[0]
    found = draw(process, toy, SHAPE, generators(2), solver=solver, steps=8, dtype=torch.float64)
    assert torch.allclose(found, state, rtol=1e-3, atol=1e-3), float((found - state).abs().max())


def test_a_picture_does_not_depend_on_its_batch() -> None:
    process = Diffusion(LINEAR)
    together = draw(process, toy, SHAPE, generators(3), solver="ddpm", steps=6)
    alone = draw(process, toy, SHAPE, generators(3)[2:], solver="ddpm", steps=6)
    assert torch.allclose(together[2:], alone, atol=1e-6)


def test_ddim_with_all_its_noise_is_ddpm_in_mean_and_spread() -> None:
    process = Diffusion(LINEAR)
    noisy, clean = randn(1, *SHAPE), randn(1, *SHAPE, seed=1)
    mean, spread = process.posterior(noisy, clean, 500, 300)
    implied = (noisy - LINEAR.alphas[500] * clean) / LINEAR.sigmas[500]
    kept = (LINEAR.sigmas[300].square() - spread[0].square()).sqrt()
    assert torch.allclose(LINEAR.alphas[300] * clean + kept * implied, mean, atol=1e-12)


def test_an_exact_denoiser_of_gaussian_data_draws_gaussian_data() -> None:
    deviation = 0.5
    process = Diffusion(Schedule.of_kind("cosine"))

    def best(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = process._plain(t, x)
        return sigma * x / (alpha.square() * deviation**2 + sigma.square())

    for solver in ("ddim", "dpm++", "ddpm"):
        found = draw(process, best, (1, 8, 8), generators(64), solver=solver, steps=100, dtype=torch.float64)
        assert float(found.std()) == pytest.approx(deviation, rel=0.05), solver


def test_events_count_the_steps_and_end_with_the_pictures() -> None:
    process = Diffusion(LINEAR)
    events = list(draw_events(process, toy, SHAPE, generators(1), steps=5))
    assert [each.index for each in events] == list(range(5)) and events[0].timestep == 999 and events[0].total == 5
    assert torch.equal(events[-1].state, events[-1].clean)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Schedule.of_kind("cubic"), "cubic"),
        (lambda: Schedule(torch.tensor([0.5, 0.9], dtype=torch.float64)), "never rise"),
        (lambda: Diffusion(LINEAR, "noise"), "noise"),
        (lambda: Diffusion(Schedule.of_kind("linear", zero_terminal_snr=True)), "no signal"),
        (lambda: Diffusion(LINEAR, pyramid=Pyramid(2), turning=(600, 300)), "rising"),
        (lambda: Diffusion(LINEAR, pyramid=Pyramid(2), turning=(300,)), "one for each"),
        (lambda: Diffusion(LINEAR, pyramid=Pyramid(1), turning=(999,)), "998"),
        (lambda: Pyramid(1, "fourier"), "fourier"),
        (lambda: Pyramid(2).check(20, 22), "20 x 22"),
        (lambda: draw(Diffusion(LINEAR), toy, SHAPE, generators(1), solver="euler"), "euler"),
        (lambda: draw(Diffusion(LINEAR), toy, SHAPE, generators(1), steps=0), "steps"),
        (lambda: draw(Diffusion(LINEAR), toy, SHAPE, generators(1), solver="ddpm", eta=0.5), "eta"),
        (lambda: Diffusion(LINEAR, time_map=torch.arange(5)), "time map"),
        (lambda: Schedule.of_scheduler(object()), "alphas_cumprod"),
    ],
)
def test_bad_settings_are_named(make, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make()
