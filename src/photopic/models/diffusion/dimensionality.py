"""Dimensionality-varying diffusion: the noisy half of the process runs on fewer pixels, because fine detail fades first.

Paper: *Dimensionality-Varying Diffusion Process* (DVDP, arXiv 2211.16032). No code was released and the formulas could not be
read: these are derived from its idea. The details of a picture are attenuated faster than the coarse part; where next to nothing
of them is left they are dropped; on the way back noise takes their place, exact but for the little that was left of their mean.
Decided here: a geometric attenuation; the state at T_k leaves the smaller space before the network is asked, so the network reads
T_k at the larger size; the network reads the state itself, with unit noise at every size. Baseline: `subspace`, the same without
attenuation (*Subspace Diffusion Generative Models*, arXiv 2205.01490). Claims ``dvdp.*`` of benchmarks/train/dvdp.py; the
identities are tests in tests/models/diffusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.pyramid import Pyramid
from photopic.models.diffusion.schedules import Schedule


@dataclass(frozen=True)
class DimensionalityConfig:
    """How dimensions go."""

    turning: tuple[int, ...] = (300, 600)  # T_1 < T_2 < ...: one halving each
    lowest: float = 0.01  # gamma_min: what is left of a component when it is dropped
    start: int = 0  # t_s: where attenuation begins
    kind: str = "pool"  # of the decomposition


def dimensionality_varying(
    schedule: Schedule,
    config: DimensionalityConfig = DimensionalityConfig(),
    *,
    prediction: str = "epsilon",
    time_map: Tensor | None = None,
) -> Diffusion:
    """The process whose details fade and whose state shrinks.

    Args:
        schedule: Of the coarsest component.
        config: How dimensions go; no turning points give the plain process.
        prediction: What the network puts out.
        time_map: As in `Diffusion`, such as `shared_timesteps.shared`.

    Raises:
        ModelError: If turning points or attenuation are not valid.

    Example:
        >>> process = dimensionality_varying(Schedule.of_kind("linear"))
        >>> [process.level(t) for t in (0, 300, 301, 999)]
        [0, 0, 1, 2]
    """
    gamma = attenuation(len(schedule), config.turning, lowest=config.lowest, start=config.start)
    pyramid = Pyramid(len(config.turning), config.kind)
    return Diffusion(schedule, prediction, pyramid, config.turning, gamma if config.turning else None, time_map)


def subspace(
    schedule: Schedule,
    turning: tuple[int, ...],
    deviations: tuple[float, ...],
    *,
    prediction: str = "epsilon",
    kind: str = "pool",
) -> Diffusion:
    """Subspace Diffusion: nothing fades; what returns is noise that also has the deviation of the dropped details.

    Args:
        schedule: Of every component.
        turning: As in `DimensionalityConfig`.
        deviations: Standard deviation of the details of clean pictures at each level, `detail_deviations`.
        prediction: What the network puts out.
        kind: Of the decomposition.
    """
    return Diffusion(schedule, prediction, Pyramid(len(turning), kind), turning, None, None, deviations)


def attenuation(
    timesteps: int, turning: Sequence[int], *, lowest: float = 0.01, start: int = 0
) -> Float64[Tensor, "components timesteps"]:
    """gamma: every component falls geometrically from 1 at ``start`` to ``lowest`` where it is dropped; the coarsest stays 1.

    Args:
        timesteps: How many.
        turning: Where the components are dropped.
        lowest: Above 0, at most 1; 1 is no attenuation.
        start: Before the first turning point.

    Raises:
        ModelError: If a number is out of its range.

    Example:
        >>> attenuation(1000, (300, 600))[:, 300].tolist()
        [0.01, 0.1, 1.0]
    """
    if not 0 < lowest <= 1:
        raise ModelError(f"lowest: expected above 0 and at most 1, found {lowest}")
    if turning and not 0 <= start < min(turning):
        raise ModelError(f"start: expected 0 to {min(turning) - 1}, before the first turning point, found {start}")
    t = torch.arange(timesteps, dtype=torch.float64)
    rows = [lowest ** ((t - start) / (point - start)).clamp(0, 1) for point in turning]
    return torch.stack([*rows, torch.ones_like(t)])


def detail_norms(pictures: Float[Tensor, "n c h w"], pyramid: Pyramid) -> tuple[float, ...]:
    """Root mean square over pictures of ||v_k||, the length of each detail, from fine to coarse.

    Args:
        pictures: Clean ones, scaled as the network reads them.
        pyramid: How they are taken apart.
    """
    pyramid.check(*pictures.shape[2:])
    found = []
    for _ in range(pyramid.levels):
        found.append(float(pyramid.detail(pictures).square().flatten(1).sum(1).mean().sqrt()))
        pictures = pyramid.down(pictures)
    return tuple(found)


def detail_deviations(pictures: Float[Tensor, "n c h w"], pyramid: Pyramid) -> tuple[float, ...]:
    """Standard deviation of each detail in each of the dimensions it has, from fine to coarse (three quarters of the pixels)."""
    _, channels, height, width = pictures.shape
    sizes = [0.75 * channels * (height >> level) * (width >> level) for level in range(pyramid.levels)]
    return tuple(norm / size**0.5 for norm, size in zip(detail_norms(pictures, pyramid), sizes, strict=True))


def mean_gaps(process: Diffusion, norms: Sequence[float]) -> tuple[float, ...]:
    """Bound on the error of every return to the larger space: lambda ||v|| / (2 sigma) at T_k.

    It bounds the total variation between the noise that is inserted and the state the process would have had, Gaussians that
    differ in their mean alone (Pinsker).

    Args:
        process: The process.
        norms: Of the details, `detail_norms`.
    """
    gaps = []
    for level, (point, norm) in enumerate(zip(process.turning, norms, strict=True)):
        gamma = 1.0 if process.attenuation is None else float(process.attenuation[level, point])
        gaps.append(float(process.schedule.alphas[point] / process.schedule.sigmas[point]) * gamma * norm / 2)
    return tuple(gaps)


def turning_points(
    schedule: Schedule, norms: Sequence[float], budget: float, *, lowest: float = 0.01
) -> tuple[int, ...]:
    """The earliest turning points that keep every return within an error budget.

    Args:
        schedule: Of alpha and sigma.
        norms: Of the details, `detail_norms`.
        budget: Largest total variation a return may cost, above 0 to 1: the bound of `mean_gaps`.
        lowest: What is left of a detail there.

    Raises:
        ModelError: If the budget is out of range, or no timestep meets it.

    Example:
        >>> turning_points(Schedule.of_kind("linear"), (10.0, 20.0), 0.05)
        (259, 396)
    """
    if not 0 < budget <= 1:
        raise ModelError(f"budget: expected above 0 and at most 1, found {budget}")
    points: list[int] = []
    ratio = schedule.alphas / schedule.sigmas * lowest / 2
    for norm in norms:
        earliest = points[-1] + 1 if points else 1
        able = (ratio[earliest : len(schedule) - 1] * norm <= budget).nonzero()
        if not len(able):
            raise ModelError(
                f"budget {budget:g}: no timestep of the schedule loses so little of a detail of length {norm:.3g}; "
                "raise the budget, lower `lowest`, or drop fewer levels"
            )
        points.append(earliest + int(able[0]))
    return tuple(points)


def pixel_share(process: Diffusion) -> float:
    """Mean share of the pixels that the network reads over all timesteps: what the work of a convolution is proportional to.

    Example:
        >>> round(pixel_share(dimensionality_varying(Schedule.of_kind("linear"))), 2)
        0.4
    """
    return sum(0.25 ** process.level(t) for t in range(process.timesteps)) / process.timesteps
