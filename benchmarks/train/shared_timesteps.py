"""Shared timesteps against the plain process: slope in time, loss near t = 0, distance in ten steps, retrofit of an old model.

    python -m benchmarks.train.shared_timesteps           # rows, a picture in docs/images; trains what is missing (hours)
    python -m benchmarks.train.shared_timesteps --quick   # the first seed, few pictures; prints only

Baseline: the same network, pictures, seeds, steps and optimiser without a map of the time (`recipes/emoji-processes`).
Distance: Fréchet, in features of emoji-clip-vit, of 512 pictures (256 with twenty-five steps) to 2,000 held-out scenes. The
retrofit goes on from the baseline with the map, on timesteps below 100 alone; its control goes on just as long without the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional as F

from benchmarks.harness.cache import code_of
from benchmarks.harness.ledger import ROOT, Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.train.processes import DRAWING, FOLDER, Processes, chart, digest, over_seeds
from photopic.models.diffusion import sampling_times
from photopic.models.diffusion.model import from_pixels
from photopic.models.diffusion.shared_timesteps import slopes

SOLVERS = {"ddim10": ("ddim", 10), "dpm10": ("dpm++", 10), "ddim25": ("ddim", 25)}
KINDS = ("plain", "shared", "retrofit", "continued")
LABELS = {
    "plain": "plain",
    "shared": "shared timesteps",
    "retrofit": "plain, then shared",
    "continued": "plain, then as long without",
}
SLOPES = ("photopic.models.diffusion.shared_timesteps",)
END = 100  # timesteps below it share
CURVE = (*range(0, END + 20), *range(END + 20, 990, 20))  # where the slope is measured


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2)
    pictures: int = 512
    probed: int = 8  # held-out scenes for slopes
    judged: int = 128  # for the loss


FULL = Settings()
QUICK = Settings((0,), 64, 4, 16)


def cases(settings: Settings) -> list[tuple[str, str]]:
    """Everything that is drawn; the retrofit with twenty-five steps alone, of which two lie where it was trained."""
    return [
        (f"{kind}-{seed}", solver)
        for seed in settings.seeds
        for solver in SOLVERS
        for kind in (KINDS if solver == "ddim25" else KINDS[:2])
    ]


def count_of(solver: str, settings: Settings) -> int:
    """Pictures: half as many with twenty-five steps."""
    return settings.pictures // 2 if solver == "ddim25" else settings.pictures


def work(bench: Processes, settings: Settings, part: str) -> None:
    """Train what is missing, seed by seed; draw and probe. A worker that trains draws from its own runs alone."""
    names = [f"{kind}-{seed}" for seed in settings.seeds for kind in KINDS]
    shared_out = all(map(bench.has, names))
    own = {f"{kind}-{seed}" for seed in mine(settings.seeds, part) for kind in KINDS}
    if not shared_out:
        bench.need(sorted(own))
    for name, solver in mine(cases(settings), part) if shared_out else cases(settings):
        if shared_out or name in own:
            bench.drawn(name, *SOLVERS[solver], count_of(solver, settings))
    for name in mine(names, part) if shared_out else sorted(own):
        losses(bench, name, settings.judged)
        if not name.startswith("continued"):
            curve(bench, name, settings.probed)


def rows(bench: Processes, settings: Settings) -> list[Row]:
    """All claims; of the full benchmark the picture in docs too."""
    found = [row for solver in SOLVERS for row in distances(bench, settings, solver)]
    found += [*spikes(bench, settings), *near_zero(bench, settings)]
    if settings is FULL:
        draw_slopes(bench, settings)
    return found


# -- distance


def distances(bench: Processes, settings: Settings, solver: str) -> list[Row]:
    """What sharing gains in one way of drawing, from the start and as a retrofit."""
    by_kind = {
        kind: [
            bench.distance(bench.drawn(f"{kind}-{seed}", *SOLVERS[solver], count_of(solver, settings)))
            for seed in settings.seeds
        ]
        for kind in KINDS
        if (f"{kind}-{settings.seeds[0]}", solver) in cases(settings)
    }
    floor = bench.floor(64, count_of(solver, settings))
    process = bench.model(f"shared-{settings.seeds[0]}").process
    early = sum(t < END for t in sampling_times(process, SOLVERS[solver][1]))
    where = f"{count_of(solver, settings)} pictures, {early} of {SOLVERS[solver][1]} calls below {END}"
    made = [_gain(f"shared_timesteps.distance_gain_{solver}", by_kind, "plain", "shared", floor, where)]
    if "retrofit" in by_kind:
        made.append(_gain(f"shared_timesteps.retrofit_gain_{solver}", by_kind, "continued", "retrofit", floor, where))
    return made


def _gain(claim: str, by_kind: Mapping[str, Sequence[float]], one: str, other: str, floor: float, where: str) -> Row:
    """Distance of one less that of the other, same seed."""
    gains = [first - second for first, second in zip(by_kind[one], by_kind[other], strict=True)]
    said = "; ".join(f"{LABELS[kind]} {', '.join(f'{each:.4f}' for each in by_kind[kind])}" for kind in (one, other))
    if one == "continued":
        said += f"; before both {np.mean(by_kind['plain']):.4f}"
    return Row(
        claim,
        *over_seeds(gains),
        target="low > 0",
        baseline=float(np.mean(by_kind[one])),
        n=len(gains),
        note=f"{where}; by seed: {said}; as many real scenes {floor:.4f}; t interval over seeds",
    )


# -- slope


def curve(bench: Processes, name: str, pictures: int) -> dict[int, float]:
    """K(t, t + 1) of a trained run on held-out scenes."""
    model = bench.model(name)
    key = {"slopes of": digest(model), "pictures": pictures, "at": CURVE, "code": code_of(*SLOPES)}

    def measured() -> list[float]:
        clean = from_pixels(bench.scenes(model.size, held_out=True)[:pictures])
        print("slopes", name, flush=True)
        return [each.value for each in slopes(model.process, model, clean, CURVE)]

    return dict(zip(CURVE, bench.kept.value(key, measured), strict=True))


def spikes(bench: Processes, settings: Settings) -> list[Row]:
    """The baseline's slope at 0 against that in the middle, and how many steps of the shared one are exactly flat."""
    plain = [curve(bench, f"plain-{seed}", settings.probed) for seed in settings.seeds]
    sharing = [curve(bench, f"shared-{seed}", settings.probed) for seed in settings.seeds]
    ratios = [each[0] / each[500] for each in plain]
    flat = [sum(each[t] == 0 for t in range(END - 1)) for each in sharing]
    jumps = [max(each[t] for t in range(END)) for each in sharing]
    totals = [np.mean([sum(each[t] for t in range(END)) for each in several]) for several in (plain, sharing)]
    first, middle = (np.mean([each[t] for each in plain]) for t in (0, 500))
    early = [np.mean([each[t] for t in range(END)]) for each in plain]
    late = [np.mean([value for t, value in each.items() if 400 <= t < 600]) for each in plain]
    return [
        Row(
            "shared_timesteps.baseline_early_slope",
            *over_seeds([float(one / two) for one, two in zip(early, late, strict=True)]),
            target="low > 1",
            n=len(early),
            note=f"mean K(t, t + 1) below {END} over that from 400 to 599, plain runs, {np.mean(early):.2f} and "
            f"{np.mean(late):.3f}; added after the spike at 0 alone was seen to differ much between seeds",
        ),
        Row(
            "shared_timesteps.baseline_spike",
            *over_seeds(ratios),
            target="low > 1",
            n=len(ratios),
            note=f"K(0, 1) over K(500, 501) of the plain runs, {first:.3f} and {middle:.4f}; t interval over seeds",
        ),
        Row(
            "shared_timesteps.flat_steps",
            min(flat),
            target="== 95",
            control=max(sum(each[t] == 0 for t in range(END - 1)) for each in plain),
            n=len(flat),
            note=f"of the 99 unit steps below {END} those with K exactly 0, the worst seed; the largest of the jumps left is "
            f"{np.mean(jumps):.2f}; K summed below {END}: plain {totals[0]:.2f}, shared {totals[1]:.2f}",
        ),
    ]


# -- loss


def losses(bench: Processes, name: str, pictures: int) -> list[float]:
    """Squared error of the noise a pixel on held-out scenes at timesteps below 100, ten of them, the same noise for every run."""
    model = bench.model(name)
    key = {"losses of": digest(model), "pictures": pictures, "code": code_of(*DRAWING, losses)}

    def measured() -> list[float]:
        clean = from_pixels(bench.scenes(model.size, held_out=True)[:pictures])
        found = []
        for timestep in range(5, END, 10):
            generator = torch.Generator().manual_seed(timestep)
            noise = torch.randn(clean.shape, generator=generator)
            at = torch.full((len(clean),), timestep)
            with torch.no_grad():
                said = [
                    model(model.process.noised(x, z, t), model.process.input_time(t))
                    for x, z, t in zip(clean.split(32), noise.split(32), at.split(32), strict=True)
                ]
            found.append(float(F.mse_loss(torch.cat(said), noise)))
        print("loss", name, flush=True)
        return found

    values: list[float] = bench.kept.value(key, measured)
    return values


def near_zero(bench: Processes, settings: Settings) -> list[Row]:
    """What sharing does to the loss below 100."""
    by_kind: dict[str, Float[np.ndarray, " seeds"]] = {
        kind: np.array([np.mean(losses(bench, f"{kind}-{seed}", settings.judged)) for seed in settings.seeds])
        for kind in KINDS
    }
    made = []
    for claim, one, other in (("loss_below_100", "plain", "shared"), ("retrofit_loss", "continued", "retrofit")):
        change = (by_kind[other] / by_kind[one] - 1).tolist()
        note = (
            f"{LABELS[other]} over {LABELS[one]} less 1: {by_kind[other].mean():.4f} against {by_kind[one].mean():.4f}"
        )
        made.append(
            Row(
                f"shared_timesteps.{claim}",
                *over_seeds(change),
                baseline=float(by_kind[one].mean()),
                n=len(change),
                note=f"relative loss on held-out scenes at ten timesteps below {END}, same noise; {note}",
            )
        )
    return made


# -- picture


def draw_slopes(bench: Processes, settings: Settings) -> None:
    """docs/images/shared-timesteps-slope.svg: K of every kind, mean over seeds; zeros are drawn at the bottom."""
    pyplot = chart()
    figure, (near, whole) = pyplot.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    for kind in KINDS[:3]:
        found = [curve(bench, f"{kind}-{seed}", settings.probed) for seed in settings.seeds]
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


def code() -> None:
    """Read the code that decides the numbers."""
    code_of(*DRAWING), code_of(*SLOPES), code_of(*DRAWING, losses)


if __name__ == "__main__":
    run(
        Benchmark(
            "shared-timesteps", __file__, __doc__ or "", FULL, QUICK, work, rows, FULL.seeds, code, Processes, FOLDER
        )
    )
