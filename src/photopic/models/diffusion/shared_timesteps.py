"""Shared timesteps: near t = 0 neighbouring timesteps tell the network the same time, so that nothing has an infinite slope there.

Paper: *Lipschitz Singularities in Diffusion Models* (E-TSDM, arXiv 2306.11251). The best noise prediction changes ever faster
with t as t goes to 0, because sigma does. Below ``end`` timesteps are grouped into ``intervals`` and each group tells the network
its first one; the noise schedule, the loss and the sampler's coefficients keep the true timestep. The network has to be trained,
or trained on, with it. Sharing moves the variation into as many jumps as there are intervals and does not remove it: K is 0 inside
an interval and larger than before at its ends. Claims ``shared_timesteps.*`` of benchmarks/train/shared_timesteps.py; exact
checks are tests in tests/models/diffusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.results import Report
from photopic.models.diffusion.process import Denoiser, Diffusion


@dataclass(frozen=True)
class SharedTimestepsConfig:
    """Which timesteps share."""

    end: int = 100  # t~: timesteps from here on tell their own time
    intervals: int = 5  # n: into which those before are grouped


def shared(process: Diffusion, config: SharedTimestepsConfig = SharedTimestepsConfig()) -> Diffusion:
    """The process with a shared time input, for training and for sampling alike.

    Raises:
        ModelError: If the numbers do not fit.

    Example:
        >>> from photopic.models.diffusion.schedules import Schedule
        >>> process = shared(Diffusion(Schedule.of_kind("linear")))
        >>> process.input_time(torch.tensor([0, 19, 20, 99, 100])).tolist()
        [0, 0, 20, 80, 100]
    """
    return replace(process, time_map=time_map(process.timesteps, config.end, config.intervals))


def time_map(timesteps: int, end: int = 100, intervals: int = 5) -> Int[Tensor, " timesteps"]:
    """f: the timestep that every timestep tells the network.

    Args:
        timesteps: How many.
        end: 0 to ``timesteps``; 0 shares nothing.
        intervals: 1 to ``end``; ``end`` of them share nothing. Where they do not divide ``end`` they start at whole timesteps at or
            before even parts.

    Raises:
        ModelError: If a number is out of its range.
    """
    if not 0 <= end <= timesteps:
        raise ModelError(f"end: expected 0 to {timesteps}, found {end}")
    if not 1 <= intervals <= max(end, 1):
        raise ModelError(
            f"intervals: expected 1 to {max(end, 1)}, the number of timesteps that share, found {intervals}"
        )
    found = torch.arange(timesteps)
    starts = torch.arange(intervals) * end // intervals
    if end:
        found[:end] = starts[torch.searchsorted(starts, torch.arange(end), right=True) - 1]
    return found


def continuous_time(t: Float[Tensor, " n"], end: float = 0.1, intervals: int = 5) -> Float[Tensor, " n"]:
    """The same for a time that is a real number: the start of its interval below ``end``, itself above.

    Example:
        >>> continuous_time(torch.tensor([0.019, 0.021, 0.5])).tolist()
        [0.0, 0.019999999552965164, 0.5]
    """
    if end <= 0 or intervals < 1:
        raise ModelError(f"expected an end above 0 and 1 or more intervals, found {end} and {intervals}")
    starts = (torch.arange(intervals, dtype=torch.float64) * end / intervals).to(t)
    own = starts[(torch.searchsorted(starts, t.contiguous(), right=True) - 1).clamp(min=0)]
    return torch.where(t < end, own, t)


@dataclass(frozen=True, eq=False)
class Slope:
    """K at one timestep.

    Attributes:
        timestep: t.
        value: Mean length of the change of the prediction from t to t', over |t - t'|.
        lengths: Of every picture.
    """

    timestep: int
    value: float
    lengths: Float[Tensor, " n"]


def slopes(
    process: Diffusion,
    model: Denoiser,
    clean: Float[Tensor, "n c h w"],
    timesteps: Sequence[int],
    *,
    apart: int = 1,
    seed: int = 0,
    batch: int = 64,
) -> Iterator[Slope]:
    """K(t, t') = E ||model(x_t, f(t)) - model(x_t, f(t'))|| / |t - t'| with t' = t + ``apart``: how steep a denoiser is in time.

    Args:
        process: Its process; f is its time map.
        model: Any denoiser.
        clean: Pictures that x_t are drawn around, scaled as the network reads them.
        timesteps: Where to measure.
        apart: t' - t, not 0.
        seed: Of the noise, the same at every timestep.
        batch: Pictures at a time.

    Yields:
        One value a timestep.

    Raises:
        ModelError: If t or t' is no timestep, or both are not of one size.
    """
    if not len(timesteps):
        raise ModelError(
            f"slopes: expected a timestep or more, found none; are there any two {apart} apart at one size?"
        )
    if apart == 0 or min(timesteps) + min(apart, 0) < 0 or max(timesteps) + max(apart, 0) >= process.timesteps:
        raise ModelError(
            f"slopes: expected t and t + {apart} from 0 to {process.timesteps - 1} and different, found t from "
            f"{min(timesteps)} to {max(timesteps)}"
        )
    for timestep in timesteps:
        level = process.level(timestep)
        if process.level(timestep + apart) != level:
            raise ModelError(
                f"slopes: timesteps {timestep} and {timestep + apart} lie on both sides of a turning point"
            )
        generator = torch.Generator().manual_seed(seed)
        lengths = []
        for start in range(0, len(clean), batch):
            part = process.pyramid.down(clean[start : start + batch], level)
            noise = torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part)
            now = torch.full((len(part),), timestep, device=part.device)
            with torch.no_grad():
                noisy = process.noised(part, noise, now, level)
                first = model(noisy, process.input_time(now))
                second = model(noisy, process.input_time(now + apart))
            lengths.append((first - second).flatten(1).norm(dim=1).cpu() / abs(apart))
        found = torch.cat(lengths)
        yield Slope(timestep, float(found.double().mean()), found)


def slope_report(process: Diffusion, curve: Iterable[Slope], **about: Any) -> Report:
    """The curve of K as a `Report`, one row a timestep.

    Args:
        process: Whose.
        curve: What ``slopes`` yielded.
        about: What else the provenance holds, such as ``model``.

    Example:
        >>> from photopic.models.diffusion.schedules import Schedule
        >>> curve = [Slope(0, 2.0, torch.tensor([2.0])), Slope(1, 0.5, torch.tensor([0.5]))]
        >>> slope_report(Diffusion(Schedule.of_kind("linear")), curve).values
        {'largest': 2.0, 'at': 0, 'flat': 0}
    """
    found = list(curve)
    rows = tuple({"timestep": each.timestep, "K": each.value} for each in found)
    top = max(found, key=lambda each: each.value)
    values = {"largest": top.value, "at": top.timestep, "flat": sum(each.value == 0 for each in found)}
    told = {"pictures": len(found[0].lengths), "shared": process.time_map is not None} | about
    return Report("slope in time", values, rows, told)
