"""From noise to pictures by any process: DDPM, DDIM and DPM-Solver++(2M), component by component, growing at the turning points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.diffusion.process import END, Denoiser, Diffusion

SOLVERS = ("ddpm", "ddim", "dpm++")


@dataclass(frozen=True, eq=False)
class Drawn:
    """One event of a run.

    Attributes:
        index: Number of the step, from 0.
        total: How many there are.
        timestep: Where the network was asked.
        state: After the step; that of the last event are the pictures.
        clean: The clean pictures the network implied, as large as the state was.
    """

    index: int
    total: int
    timestep: int
    state: Float[Tensor, "n c h w"]
    clean: Float[Tensor, "n c h2 w2"]


def sampling_times(process: Diffusion, steps: int) -> list[int]:
    """The timesteps a run visits, the noisiest first; evenly spread, those nearest to a turning point moved onto it.

    Raises:
        ModelError: If there are fewer than one step, more than timesteps, or too few to meet every turning point.

    Example:
        >>> from photopic.models.diffusion.schedules import Schedule
        >>> sampling_times(Diffusion(Schedule.of_kind("linear")), 4)
        [999, 749, 499, 249]
    """
    total = process.timesteps
    if not 1 + process.pyramid.levels <= steps <= total:
        raise ModelError(
            f"steps: expected {1 + process.pyramid.levels} to {total}, found {steps}; every turning point needs one"
        )
    times = [total - 1 - (index * total) // steps for index in range(steps)]
    for point in process.turning:
        if point not in times:
            near = min(
                (index for index in range(1, steps) if times[index] not in process.turning),
                key=lambda index: abs(times[index] - point),
            )
            times[near] = point
    return sorted(times, reverse=True)


def draw_events(
    process: Diffusion,
    model: Denoiser,
    shape: tuple[int, int, int],
    generators: Sequence[torch.Generator],
    *,
    solver: str = "ddim",
    steps: int = 50,
    eta: float = 0.0,
    clip: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Drawn]:
    """Draw pictures step by step.

    Args:
        process: What the network was trained on.
        model: The network.
        shape: Channels, height and width of the pictures.
        generators: One a picture, on the CPU; what they give does not depend on the batch.
        solver: ``ddpm``: ancestral; ``ddim`` (arXiv 2010.02502); ``dpm++``: DPM-Solver++(2M) (arXiv 2211.01095).
        steps: Calls of the network.
        eta: Share of DDIM's noise, 0 to 1.
        clip: Largest absolute value of a clean picture, to which what the network implies is clipped; None: not at all. Of a
            picture halved by pooling it is twice that, as its values are; those of other decompositions have no such bound.
        device: Where the network is.
        dtype: Of the state.

    Yields:
        One event a step.

    Raises:
        ModelError: For a size that cannot be halved, an unknown solver, or bad numbers.
    """
    if solver not in SOLVERS:
        raise ModelError(f"solver: expected one of {', '.join(SOLVERS)}, found {solver!r}")
    if not 0 <= eta <= 1 or (eta and solver != "ddim"):
        raise ModelError(f"eta: expected 0 to 1 with ddim and 0 with another solver, found {eta} with {solver}")
    process.pyramid.check(*shape[1:])

    def noise(level: int) -> Tensor:
        size = (shape[0], shape[1] >> level, shape[2] >> level)
        return torch.stack([torch.randn(size, generator=each, dtype=dtype) for each in generators]).to(device)

    times = sampling_times(process, steps)
    level = process.level(times[0])
    state, before = noise(level), None
    for index, (now, then) in enumerate(zip(times, [*times[1:], END], strict=True)):
        at = torch.full((len(generators),), now, device=device)
        with torch.no_grad():
            prediction = model(state, process.input_time(at))
            clean = process.to_sample(prediction, state, at, level)
            if clip is not None:
                clean = _clipped(process, clean, level, clip)
        given = state
        if solver == "ddpm":
            state, spread = process.posterior(given, clean, now, then, level)
            if then != END:
                state = state + process.pyramid.weigh(noise(level), [each.to(state) for each in spread])
        elif solver == "ddim":
            state = _ddim(process, given, clean, now, then, level, eta, noise)
        else:
            state = _dpm(process, given, clean, now, then, level, before)
        before = (clean, now)
        grown = level - (process.level(then) if then != END else 0)
        for _ in range(grown):
            state, before = process.lifted(state, then, noise(level - 1), level), None
            level -= 1
        yield Drawn(index, steps, now, state, clean)


def draw(
    process: Diffusion,
    model: Denoiser,
    shape: tuple[int, int, int],
    generators: Sequence[torch.Generator],
    **options: object,
) -> Float[Tensor, "n c h w"]:
    """Draw pictures; takes the arguments of ``draw_events``.

    Example:
        >>> pictures = draw(process, network, (3, 64, 64), generators, steps=10)  # doctest: +SKIP
    """
    for event in draw_events(process, model, shape, generators, **options):  # type: ignore[arg-type]
        state = event.state
    return state


def _clipped(process: Diffusion, clean: Tensor, level: int, clip: float) -> Tensor:
    """Within what pixels can be. Where details fade the coarse part comes first and then as much detail as fits: faint details are
    the network's error over a small factor, and clipping the sum would let them push the coarse part to grey."""
    pyramid = process.pyramid
    bound = clip * 2**level if not level or pyramid.kind == "pool" else float("inf")
    if level == pyramid.levels or process.attenuation is None or bool((process.attenuation == 1).all()):
        return clean.clamp(-bound, bound)
    coarse = pyramid.up(_clipped(process, pyramid.down(clean), level + 1, clip))
    return coarse + pyramid.detail((coarse + pyramid.detail(clean)).clamp(-bound, bound))


def _ddim(
    process: Diffusion,
    state: Tensor,
    clean: Tensor,
    now: int,
    then: int,
    level: int,
    eta: float,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """x_s = sum_i lambda_{i,s} clean_i + sqrt(sigma_s^2 - v_i) eps_i + sqrt(v_i) z_i, v = eta^2 times the posterior's variance."""
    at, at_then = (torch.full((len(state),), each, device=state.device) for each in (now, then))
    signal, sigma = process.scales(at, state, level)
    later, sigma_then = process.scales(at_then, state, level)
    implied = (state - process.pyramid.weigh(clean, signal)) / sigma  # eps_i of equation 12 of DDIM
    result = process.pyramid.weigh(clean, later)
    if not eta or then == END:
        return result + sigma_then * implied
    spread = [eta * each.to(state) for each in process.posterior(state, clean, now, then, level)[1]]
    # what is left of the variance for the implied noise
    kept = [(sigma_then.square() - each.square()).clamp(min=0).sqrt() for each in spread]
    return result + process.pyramid.weigh(implied, kept) + process.pyramid.weigh(noise(level), spread)


def _dpm(
    process: Diffusion,
    state: Tensor,
    clean: Tensor,
    now: int,
    then: int,
    level: int,
    before: tuple[Tensor, int] | None,
) -> Tensor:
    """x_s = sigma_s / sigma_t x_t + (lambda_s - lambda_t sigma_s / sigma_t) D, D extrapolated from the last two clean pictures.

    Each component has a half log signal-to-noise ratio l = log(lambda / sigma) of its own; D = x0 + h / (2 h_before) (x0 -
    x0_before) with h the step in l. The first step, the last, and the one after a picture has grown are of first order.
    """
    at, at_then = (torch.full((len(state),), each, device=state.device) for each in (now, then))
    signal, sigma = process.scales(at, state, level)
    later, sigma_then = process.scales(at_then, state, level)
    shrink = sigma_then / sigma  # (n, 1, 1, 1)
    factors = [end - start * shrink for start, end in zip(signal, later, strict=True)]
    result = shrink * state + process.pyramid.weigh(clean, factors)
    if before is None or then == END:
        return result
    earlier, when = before
    first, sigma_first = process.scales(torch.full_like(at, when), state, level)
    weights = []
    for start, middle, end, factor in zip(first, signal, later, factors, strict=True):
        step = (end / sigma_then).log() - (middle / sigma).log()  # h: how far the log signal-to-noise ratio goes
        step_before = (middle / sigma).log() - (start / sigma_first).log()  # inf where no signal was left
        weights.append(factor * step / (2 * step_before))
    return result + process.pyramid.weigh(clean - earlier, weights)
