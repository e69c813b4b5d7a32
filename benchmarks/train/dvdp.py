"""Dimensionality-varying diffusion against the plain process: time, distance to held-out scenes, and fine detail.

    python -m benchmarks.train.dvdp          # rows, pictures in docs/images; trains what is missing (hours), draws with two workers
    python -m benchmarks.train.dvdp --quick  # the first seed, few pictures; prints only

Baseline: the same network, pictures, seeds, steps and optimiser on the plain process, as `recipes/emoji-processes` trains them.
Distance: Fréchet, in features of emoji-clip-vit, of 256 pictures to 2,000 held-out scenes. Fine detail: power of pictures over
power of held-out scenes, ring by ring; the gap is the mean |log10| of that ratio from a quarter of the sampling frequency on.
Control: no fading, drawn with plain noise in place of the details and with noise as strong as they are (Subspace Diffusion).
Times are taken in turns, one thread each, while nothing else should run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.harness.cache import code_of
from benchmarks.harness.ledger import ROOT, Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.harness.timing import side_by_side
from benchmarks.train.processes import DRAWING, FOLDER, Processes, chart, over_seeds, recipe
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.metrics.intervals import Interval, paired_bootstrap, ratio_bootstrap
from photopic.metrics.radial_spectrum import radial_spectrum
from photopic.models.diffusion.dimensionality import pixel_share
from photopic.models.diffusion.networks import unet
from photopic.train.diffusion.training import train_events

SOLVER, STEPS = "ddim", 25
GROUP = 32  # pictures whose spectrum is one sample of the gap
IMAGES = ROOT / "docs" / "images"
WAYS = {  # name: run, and whether noise as strong as the details takes their place
    "plain": ("plain", False),
    "varying": ("varying", False),
    "steady": ("steady", False),
    "subspace": ("steady", True),
}
LABELS = {
    "plain": "plain",
    "varying": "varying dimensions",
    "steady": "the same without fading",
    "subspace": "without fading, stronger noise (Subspace Diffusion)",
}


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2)
    pictures: int = 256
    large: int = 128  # pictures at 128 pixels
    training_steps: int = 60  # timed
    repeats: int = 6  # of timed sampling


FULL = Settings()
QUICK = Settings((0,), 64, 64, 3, 1)
Case = tuple[str, int, bool]  # run, pictures, subspace


def seeds_of(way: str, settings: Settings) -> tuple[int, ...]:
    """The ablations without fading are of one seed."""
    return settings.seeds if way in ("plain", "varying") else settings.seeds[:1]


def cases(settings: Settings) -> list[Case]:
    """Everything that is drawn."""
    found = [
        (f"{name}-{seed}", settings.pictures, subspace)
        for way, (name, subspace) in WAYS.items()
        for seed in seeds_of(way, settings)
    ]
    return found + [(f"{name}-128-0", settings.large, False) for name in ("plain", "varying")]


def work(bench: Processes, settings: Settings, part: str) -> None:
    """Train what is missing, then draw; a worker that trains draws from its own runs alone."""
    names = sorted({case[0] for case in cases(settings)})
    shared_out = all(map(bench.has, names))
    own = mine(names, part)
    bench.need(own)
    for name, count, subspace in mine(cases(settings), part) if shared_out else cases(settings):
        if shared_out or name in own:
            bench.drawn(name, SOLVER, STEPS, count, subspace=subspace)


def rows(bench: Processes, settings: Settings) -> list[Row]:
    """All claims; of the full benchmark the pictures in docs too."""
    pictures = {case: bench.drawn(case[0], SOLVER, STEPS, case[1], subspace=case[2]) for case in cases(settings)}
    found = [*times(bench, settings, 64), *times(bench, settings, 128)]
    found.append(train_speedup("dvdp.train_speedup_batch32", 64, settings.training_steps // 3, 32))
    found += distances(bench, settings, pictures)
    found += [large_gap(bench, settings, pictures), *details(bench, settings, pictures)]
    if settings is FULL:
        draw_spectra(bench, settings, pictures)
        draw_grids(bench, settings, pictures)
    return found


# -- time


def times(bench: Processes, settings: Settings, size: int) -> list[Row]:
    """Seconds of a training step and of a picture, plain over varying, in turns."""
    suffix = "" if size == 64 else "_128"
    made = [train_speedup(f"dvdp.train_speedup{suffix}", size, settings.training_steps // (size // 64))]
    models = [bench.model(f"{name}{'' if size == 64 else '-128'}-0") for name in ("plain", "varying")]
    calls = [partial(each.draw, range(8), solver=SOLVER, steps=STEPS) for each in models]
    plain, varying = side_by_side(calls, settings.repeats, warm_up=0)
    ratios = [one / other for one, other in zip(plain, varying, strict=True)]
    value = Interval(float(np.median(ratios)), min(ratios), max(ratios))  # six cover a median in 97 % of cases
    note = (
        f"{size} pixels, eight pictures of {STEPS} DDIM steps, {np.median(plain):.1f} against {np.median(varying):.1f} s; "
        "median of turns, the interval is their range"
    )
    return [*made, Row(f"dvdp.sample_speedup{suffix}", *value, target=">= 1.6", n=len(ratios), note=note)]


def train_speedup(claim: str, size: int, count: int, batch: int | None = None) -> Row:
    """Seconds of a training step, plain over varying; at the recipe's batch or another."""
    share = pixel_share(recipe("variants").VARIANTS["varying"].process)
    batch = batch or recipe("variants").BASELINE.batch
    with tempfile.TemporaryDirectory() as folder:
        steps = [
            training(name + ("" if size == 64 else "-128"), Path(folder) / name, batch) for name in ("plain", "varying")
        ]
        plain, varying = side_by_side([partial(next, each) for each in steps], count, warm_up=2)
    note = (
        f"{size} pixels, {batch} pictures a step, {1e3 * np.mean(plain):.0f} against {1e3 * np.mean(varying):.0f} ms; the network "
        f"reads {share:.2f} of the pixels, {1 / share:.1f} times fewer"
    )
    return Row(claim, *ratio_bootstrap(plain, varying), target=">= 1.6", n=len(plain), note=note)


def training(kind: str, folder: Path, batch: int) -> Iterator[Any]:
    """The recipe's training from its first step."""
    variant = recipe("variants").VARIANTS[kind]
    network = unet(variant.size, recipe("variants").CHANNELS, levels=variant.process.pyramid.levels)
    images = recipe("variants").pictures(variant.size)
    config = replace(variant.config, batch=batch)
    return train_events(network, variant.process, images, folder, config, save_every=10**9)


# -- distance


def distances(bench: Processes, settings: Settings, pictures: Any) -> list[Row]:
    """The distance of every way and the gap that is claimed."""
    count = settings.pictures
    by_way = {
        way: [bench.distance(pictures[f"{name}-{seed}", count, subspace]) for seed in seeds_of(way, settings)]
        for way, (name, subspace) in WAYS.items()
    }
    floor = bench.floor(64, count)
    made = []
    for way, values in by_way.items():
        note = (
            f"{LABELS[way]}: {', '.join(f'{value:.4f}' for value in values)} by seed; as many real scenes {floor:.4f}"
        )
        made.append(Row(f"dvdp.distance.{way}", *over_seeds(values), n=len(values), note=note))
    allowed = max(by_way["plain"]) - float(np.mean(by_way["plain"]))
    gaps = [one - other for one, other in zip(by_way["varying"], by_way["plain"], strict=True)]
    note = (
        "Fréchet distance of varying dimensions less that of the plain process, same seed; the target is how far the baseline's "
        "worst seed lies above its mean; t interval over seeds"
    )
    baseline = float(np.mean(by_way["plain"]))
    control = by_way["subspace"][0] - by_way["plain"][0]
    return [
        Row(
            "dvdp.distance_gap",
            *over_seeds(gaps),
            target=f"<= {allowed:.4f}",
            baseline=baseline,
            control=control,
            n=len(gaps),
            note=f"{note}; control: Subspace Diffusion, one seed",
        ),
        *made,
    ]


def large_gap(bench: Processes, settings: Settings, pictures: Any) -> Row:
    """The same at 128 pixels, one seed."""
    plain, varying = (bench.distance(pictures[f"{name}-128-0", settings.large, False]) for name in ("plain", "varying"))
    note = f"one seed, {recipe('variants').LARGE.steps} steps, {settings.large} pictures: {varying:.4f} against {plain:.4f}"
    floor = bench.floor(128, settings.large)
    return Row("dvdp.distance_gap_128", varying - plain, baseline=plain, n=1, note=f"{note}; real scenes {floor:.4f}")


# -- fine detail


def gap_of(pictures: np.ndarray, real: Float[np.ndarray, " frequencies"]) -> float:
    """Mean |log10 of the power over that of real scenes| from a quarter of the sampling frequency on."""
    ratio = np.log10(radial_spectrum(pictures) / real)
    return float(np.abs(ratio[len(real) // 2 :]).mean())


def gaps(bench: Processes, settings: Settings, pictures: Any, way: str) -> list[list[float]]:
    """By seed, for each group of pictures."""
    real = bench.spectrum(64)
    name, subspace = WAYS[way]
    found = []
    for seed in seeds_of(way, settings):
        drawn = pictures[f"{name}-{seed}", settings.pictures, subspace]
        found.append([gap_of(drawn[start : start + GROUP], real) for start in range(0, len(drawn), GROUP)])
    return found


def details(bench: Processes, settings: Settings, pictures: Any) -> list[Row]:
    """How far fine detail is from that of real scenes; with rows for what fading gives."""
    real = bench.spectrum(64)
    scenes = bench.scenes(64).numpy()[: settings.pictures]
    floor = float(np.mean([gap_of(scenes[start : start + GROUP], real) for start in range(0, len(scenes), GROUP)]))
    by_way = {way: gaps(bench, settings, pictures, way) for way in WAYS}
    made = []
    for way, values in by_way.items():
        name, subspace = WAYS[way]
        drawn = [pictures[f"{name}-{seed}", settings.pictures, subspace] for seed in seeds_of(way, settings)]
        power = np.median((radial_spectrum(np.concatenate(drawn)) / real)[len(real) // 2 :])
        note = f"{LABELS[way]}: mean |log10| of the power ratio, whose median is {power:.2f}; real scenes {floor:.3f}"
        by_seed = [float(np.mean(each)) for each in values]
        made.append(Row(f"dvdp.detail_gap.{way}", *over_seeds(by_seed), n=len(by_seed), note=note))
    for way in ("steady", "subspace"):
        one, other = by_way[way][0], by_way["varying"][0]
        note = (
            f"detail gap of {LABELS[way]} less that with fading, {np.mean(one):.3f} and {np.mean(other):.3f}; one run of each, "
            f"bootstrap over {len(one)} groups of {GROUP} pictures of the same seeds"
        )
        made.append(
            Row(f"dvdp.fading_gain.{way}", *paired_bootstrap(one, other), target="low > 0", n=len(one), note=note)
        )
    return made


# -- pictures


def draw_spectra(bench: Processes, settings: Settings, pictures: Any) -> None:
    """docs/images/dvdp-spectrum.svg: power over that of real scenes."""
    pyplot = chart()
    real = bench.spectrum(64)
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for way, (name, subspace) in WAYS.items():
        several = [
            radial_spectrum(pictures[f"{name}-{seed}", settings.pictures, subspace]) / real
            for seed in seeds_of(way, settings)
        ]
        axes.plot(range(1, len(real)), np.mean(several, 0)[1:], label=LABELS[way])
        axes.fill_between(range(1, len(real)), np.min(several, 0)[1:], np.max(several, 0)[1:], alpha=0.15)
    axes.axhline(1, color="black", linewidth=0.8)
    for cut in (8, 16):
        axes.axvline(cut, color="grey", linestyle=":", linewidth=0.8)
    axes.set(
        yscale="log", xlabel="cycles a picture (dotted: where halved pictures end)", ylabel="power over real scenes"
    )
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(IMAGES / "dvdp-spectrum.svg", metadata={"Date": None})


def draw_grids(bench: Processes, settings: Settings, pictures: Any) -> None:
    """docs/images/dvdp-samples.png: a row of the same seeds for each way; at 128 pixels another sheet."""
    shown = [bench.scenes(64, held_out=True).numpy()[:12]]
    shown += [pictures[f"{name}-0", settings.pictures, subspace][:12] for name, subspace in WAYS.values()]
    _write("dvdp-samples.png", shown)
    shown = [bench.scenes(128, held_out=True).numpy()[:8]]
    shown += [pictures[f"{name}-128-0", settings.large, False][:8] for name in ("plain", "varying")]
    _write("dvdp-samples-128.png", shown)


def _write(name: str, shown: Sequence[np.ndarray]) -> None:
    sheet = contact_sheet([picture for row in shown for picture in row], columns=len(shown[0]))
    (IMAGES / name).write_bytes(png_bytes(sheet))


def code() -> None:
    """Read the code that decides what is drawn."""
    code_of(*DRAWING)


if __name__ == "__main__":
    run(Benchmark("dvdp", __file__, __doc__ or "", FULL, QUICK, work, rows, FULL.seeds, code, Processes, FOLDER))
