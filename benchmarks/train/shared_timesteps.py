"""Shared timesteps against the plain process: slope in time, loss near t = 0, distance in ten steps, retrofit of an old model.

    python -m benchmarks shared-timesteps           # rows, a picture in docs/images; trains what is missing (hours)

Baseline: the same network, pictures, seeds, steps and optimiser without a map of the time (`recipes/emoji-processes`).
Distance: Fréchet, in features of emoji-clip-vit, of 512 pictures (256 with twenty-five steps) to 2,000 held-out scenes. The
retrofit goes on from the baseline with the map, on timesteps below 100 alone; its control goes on just as long without the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch.nn import functional as F

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, over_seeds, row
from benchmarks.harness.ledger import ROOT
from benchmarks.train.processes import Drawing, Processes, chart
from photopic.core.config import Config
from photopic.data.pixels import from_pixels
from photopic.models.diffusion import sampling_times
from photopic.models.diffusion.shared_timesteps import slopes

SOLVERS = {"ddim10": ("ddim", 10), "dpm10": ("dpm++", 10), "ddim25": ("ddim", 25)}
KINDS = ("plain", "shared", "retrofit", "continued")
LABELS = {
    "plain": "plain",
    "shared": "shared timesteps",
    "retrofit": "plain, then shared",
    "continued": "plain, then as long without",
}
END = 100  # timesteps below it share
CURVE = (*range(0, END + 20), *range(END + 20, 990, 20))  # where the slope is measured
LOSS = f"relative loss on held-out scenes at ten timesteps below {END}, same noise, less 1"
CLAIMS = (
    Claim("shared_timesteps.distance_gain_*", "low > 0", "Fréchet distance of plain less shared, same seed"),
    Claim("shared_timesteps.retrofit_gain_*", "low > 0", "Fréchet distance of going on without less with the map"),
    Claim(
        "shared_timesteps.baseline_early_slope", "low > 1", f"mean K(t, t + 1) below {END} over 400 to 599, plain runs"
    ),
    Claim("shared_timesteps.baseline_spike", "low > 1", "K(0, 1) over K(500, 501) of the plain runs"),
    Claim(
        "shared_timesteps.flat_steps", "== 95", f"of the 99 unit steps below {END} those with K exactly 0, worst seed"
    ),
    Claim("shared_timesteps.loss_below_100", "", LOSS),
    Claim("shared_timesteps.retrofit_loss", "", LOSS),
)


@dataclass(frozen=True)
class SharedConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2)  # of trainings
    pictures: Annotated[int, Ge(2)] = 512  # of each run with ten steps; half as many with twenty-five
    probed: Annotated[int, Ge(1)] = 8  # held-out scenes for slopes
    judged: Annotated[int, Ge(1)] = 128  # held-out scenes for the loss


Runs = Bench[SharedConfig, Processes]


@dataclass(frozen=True)
class Slopes:
    """K(t, t + 1) of a trained run on held-out scenes, at the timesteps of ``CURVE``."""

    name: str
    scenes: int


@dataclass(frozen=True)
class Losses:
    """Squared error of a run's noise a pixel on held-out scenes at ten timesteps below 100, the same noise for every run."""

    name: str
    scenes: int


def drawings(config: SharedConfig, kind: str, solver: str) -> list[Drawing]:
    """What is drawn of a kind of run, by seed."""
    count = config.pictures // 2 if solver == "ddim25" else config.pictures
    return [Drawing(f"{kind}-{seed}", *SOLVERS[solver], count) for seed in config.seeds]


def cases(config: SharedConfig) -> list[Drawing | Slopes | Losses]:
    """Everything slow; the retrofit is drawn with twenty-five steps alone, of which two lie where it was trained."""
    drawn = [(kind, solver) for solver in SOLVERS for kind in (KINDS if solver == "ddim25" else KINDS[:2])]
    names = [f"{kind}-{seed}" for kind in KINDS for seed in config.seeds]
    probed: list[Slopes | Losses] = [Losses(name, config.judged) for name in names]
    probed += [Slopes(name, config.probed) for name in names if not name.startswith("continued")]
    return [*(each for pair in drawn for each in drawings(config, *pair)), *probed]


def measure(bench: Bench[Any, Processes], case: Drawing | Slopes | Losses) -> Any:
    """Train what is missing, then draw, or probe."""
    runs = bench.subject
    if isinstance(case, Drawing):
        return len(runs.drawn(case))
    model = runs.model(case.name)
    clean = from_pixels(runs.scenes(model.size, held_out=True)[: case.scenes])
    if isinstance(case, Slopes):
        return [each.value for each in slopes(model.process, model, clean, CURVE)]
    return [loss_at(model, clean, timestep) for timestep in range(5, END, 10)]


def loss_at(model: Any, clean: torch.Tensor, timestep: int) -> float:
    """Mean squared error of the predicted noise."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(timestep))
    at = torch.full((len(clean),), timestep)
    with torch.no_grad():
        said = [
            model(model.process.noised(x, z, t), model.process.input_time(t))
            for x, z, t in zip(clean.split(32), noise.split(32), at.split(32), strict=True)
        ]
    return float(F.mse_loss(torch.cat(said), noise))


def curve(bench: Runs, name: str) -> dict[int, float]:
    """K(t, t + 1) by t."""
    return dict(zip(CURVE, bench.found(Slopes(name, bench.config.probed)), strict=True))


def rows(bench: Runs) -> Iterator[Row]:
    """All claims."""
    for solver in SOLVERS:
        yield from distances(bench, solver)
    yield from spikes(bench.config.seeds, lambda name: curve(bench, name))
    yield from near_zero(bench)


def distances(bench: Runs, solver: str) -> Iterator[Row]:
    """What sharing gains in one way of drawing, from the start and as a retrofit."""
    runs, config = bench.subject, bench.config
    kinds = KINDS if solver == "ddim25" else KINDS[:2]
    by_kind = {kind: [runs.distance(runs.drawn(each)) for each in drawings(config, kind, solver)] for kind in kinds}
    count = drawings(config, "plain", solver)[0].count
    process, steps = runs.model(f"shared-{config.seeds[0]}").process, SOLVERS[solver][1]
    early = sum(t < END for t in sampling_times(process, steps))
    where = f"{count} pictures, {early} of {steps} calls below {END}; as many real scenes {runs.floor(64, count):.4f}"
    yield gain(f"shared_timesteps.distance_gain_{solver}", by_kind, "plain", "shared", where)
    if "retrofit" in by_kind:
        yield gain(f"shared_timesteps.retrofit_gain_{solver}", by_kind, "continued", "retrofit", where)


def gain(claim: str, by_kind: Mapping[str, Sequence[float]], one: str, other: str, where: str) -> Row:
    """Distance of one less that of the other, same seed."""
    gains = [first - second for first, second in zip(by_kind[one], by_kind[other], strict=True)]
    said = "; ".join(f"{LABELS[kind]} {', '.join(f'{each:.4f}' for each in by_kind[kind])}" for kind in (one, other))
    if one == "continued":
        said += f"; before both {np.mean(by_kind['plain']):.4f}"
    note = f"{where}; by seed: {said}; t interval over seeds"
    return row(claim, over_seeds(gains), baseline=float(np.mean(by_kind[one])), n=len(gains), note=note)


def spikes(seeds: Sequence[int], curve: Callable[[str], Mapping[int, float]]) -> Iterator[Row]:
    """The baseline's slope at 0 against that in the middle, and how many steps of the shared one are exactly flat."""
    plain, sharing = ([curve(f"{kind}-{seed}") for seed in seeds] for kind in ("plain", "shared"))
    early = [float(np.mean([each[t] for t in range(END)])) for each in plain]
    late = [float(np.mean([value for t, value in each.items() if 400 <= t < 600])) for each in plain]
    note = f"{np.mean(early):.2f} and {np.mean(late):.3f}; added after the spike at 0 alone was seen to differ much between seeds"
    ratios = [one / two for one, two in zip(early, late, strict=True)]
    yield row("shared_timesteps.baseline_early_slope", over_seeds(ratios), n=len(ratios), note=note)
    first, middle = (np.mean([each[t] for each in plain]) for t in (0, 500))
    note = f"{first:.3f} and {middle:.4f}; t interval over seeds"
    yield row(
        "shared_timesteps.baseline_spike", over_seeds([each[0] / each[500] for each in plain]), n=len(plain), note=note
    )
    flat, unshared = ([sum(each[t] == 0 for t in range(END - 1)) for each in several] for several in (sharing, plain))
    jumps = np.mean([max(each[t] for t in range(END)) for each in sharing])
    totals = [np.mean([sum(each[t] for t in range(END)) for each in several]) for several in (plain, sharing)]
    note = f"the largest of the jumps left is {jumps:.2f}; K summed below {END}: plain {totals[0]:.2f}, shared {totals[1]:.2f}"
    yield row("shared_timesteps.flat_steps", min(flat), control=max(unshared), n=len(flat), note=note)


def near_zero(bench: Runs) -> Iterator[Row]:
    """What sharing does to the loss below 100."""
    seeds, judged = bench.config.seeds, bench.config.judged
    by_kind = {
        kind: np.array([np.mean(bench.found(Losses(f"{kind}-{each}", judged))) for each in seeds]) for kind in KINDS
    }
    for claim, one, other in (("loss_below_100", "plain", "shared"), ("retrofit_loss", "continued", "retrofit")):
        change = (by_kind[other] / by_kind[one] - 1).tolist()
        baseline = float(by_kind[one].mean())
        note = f"{LABELS[other]} over {LABELS[one]}: {by_kind[other].mean():.4f} against {baseline:.4f}"
        yield row(f"shared_timesteps.{claim}", over_seeds(change), baseline=baseline, n=len(change), note=note)


def draw_slopes(bench: Runs, _: Sequence[Row]) -> None:
    """docs/images/shared-timesteps-slope.svg: K of every kind, mean over seeds; zeros are drawn at the bottom."""
    pyplot = chart()
    figure, (near, whole) = pyplot.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    for kind in KINDS[:3]:
        found = [curve(bench, f"{kind}-{seed}") for seed in bench.config.seeds]
        mean = {t: float(np.mean([each[t] for each in found])) for t in CURVE}
        bottom = 1e-3
        near.plot(range(END + 20), [max(mean[t], bottom) for t in range(END + 20)], label=LABELS[kind], linewidth=1)
        far = [t for t in CURVE if t >= END]
        whole.plot(far, [mean[t] for t in far], label=LABELS[kind], linewidth=1)
    near.set(yscale="log", xlabel="timestep t", ylabel="K(t, t + 1); 0.001 stands for 0")
    whole.set(xlabel="timestep t, from 100 on")
    near.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "images" / "shared-timesteps-slope.svg", metadata={"Date": None})


BENCHMARKS = (
    Benchmark(
        "shared-timesteps", __doc__, SharedConfig(), SharedConfig((0,), 64, 4, 16), CLAIMS, rows, cases, measure,
        open=lambda config, cache: Processes(cache), together=lambda case: case.name.rsplit("-", 1)[1],
        seeds=SharedConfig().seeds, folder="processes", finish=draw_slopes,
    ),
)  # fmt: skip
