"""Dimensionality-varying diffusion against the plain process: time, distance to held-out scenes, and fine detail.

    python -m benchmarks dvdp          # rows, pictures in docs/images; trains what is missing (hours)

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
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Float

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, over_seeds, row
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.timing import median_ratio, side_by_side
from benchmarks.train.processes import Drawing, Processes, chart, recipe
from photopic.core.config import Config
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.metrics.intervals import paired_bootstrap
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
GAP = "Fréchet distance of varying dimensions less that of the plain process, same seed"
WORST = "the target is how far the baseline's worst seed lies above its mean; control: Subspace Diffusion, one seed"
FADING = (
    f"detail gap less that with fading; one run of each, bootstrap over groups of {GROUP} pictures of the same seeds"
)
CLAIMS = (
    Claim("dvdp.train_speedup*", ">= 1.6", "a training step, plain over varying"),
    Claim("dvdp.sample_speedup*", ">= 1.6", f"eight pictures of {STEPS} DDIM steps, plain over varying"),
    Claim("dvdp.distance_gap", "", f"{GAP}; {WORST}"),
    Claim("dvdp.distance_gap_128", "", f"{GAP}, at 128 pixels"),
    Claim("dvdp.distance.*"),
    Claim("dvdp.detail_gap.*", "", "mean |log10| of the power ratio"),
    Claim("dvdp.fading_gain.*", "low > 0", FADING),
)


@dataclass(frozen=True)
class DvdpConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2)  # of trainings
    pictures: Annotated[int, Ge(GROUP)] = 256  # of each run
    large: Annotated[int, Ge(GROUP)] = 128  # pictures at 128 pixels
    training_steps: Annotated[int, Ge(3)] = 60  # timed
    repeats: Annotated[int, Ge(1)] = 6  # of timed sampling

    def seeds_of(self, way: str) -> tuple[int, ...]:
        """The ablations without fading are of one seed."""
        return self.seeds if way in ("plain", "varying") else self.seeds[:1]


Runs = Bench[DvdpConfig, Processes]


def drawings(config: DvdpConfig, way: str) -> list[Drawing]:
    """What is drawn in one way, by seed."""
    name, subspace = WAYS[way]
    return [Drawing(f"{name}-{seed}", SOLVER, STEPS, config.pictures, subspace) for seed in config.seeds_of(way)]


def large_drawings(config: DvdpConfig) -> list[Drawing]:
    """The same at 128 pixels, plain and varying."""
    return [Drawing(f"{name}-128-0", SOLVER, STEPS, config.large) for name in ("plain", "varying")]


def cases(config: DvdpConfig) -> list[Drawing]:
    """Everything that is drawn, and before it trained."""
    return [each for way in WAYS for each in drawings(config, way)] + large_drawings(config)


def measure(bench: Bench[Any, Processes], case: Drawing) -> int:
    """Train what is missing, and draw."""
    return len(bench.subject.drawn(case))


def rows(bench: Runs) -> Iterator[Row]:
    """All claims."""
    for size in (64, 128):
        yield from times(bench, size)
    steps = bench.config.training_steps // 3
    yield train_speedup("dvdp.train_speedup_batch32", 64, steps, 32)
    yield from distances(bench)
    yield large_gap(bench)
    yield from details(bench)


def times(bench: Runs, size: int) -> Iterator[Row]:
    """Seconds of a training step and of a picture, plain over varying, in turns."""
    suffix, label = ("", "") if size == 64 else ("_128", "-128")
    yield train_speedup(f"dvdp.train_speedup{suffix}", size, bench.config.training_steps // (size // 64))
    models = [bench.subject.model(f"{name}{label}-0") for name in ("plain", "varying")]
    calls = [partial(each.draw, range(8), solver=SOLVER, steps=STEPS) for each in models]
    plain, varying = side_by_side(calls, bench.config.repeats, warm_up=0)
    note = f"{size} pixels, {np.median(plain):.1f} against {np.median(varying):.1f} s"
    yield row(f"dvdp.sample_speedup{suffix}", median_ratio(plain, varying), n=len(plain), note=note)


def train_speedup(claim: str, size: int, count: int, batch: int | None = None) -> Row:
    """Seconds of a training step, plain over varying; at the recipe's batch or another."""
    variants = recipe("variants")
    share, batch = pixel_share(variants.VARIANTS["varying"].process), batch or variants.BASELINE.batch
    label = "" if size == 64 else "-128"
    with tempfile.TemporaryDirectory() as folder:
        steps = [training(name + label, Path(folder) / name, batch) for name in ("plain", "varying")]
        plain, varying = side_by_side([partial(next, each) for each in steps], count, warm_up=2)
    note = (
        f"{size} pixels, {batch} pictures a step, {1e3 * np.median(plain):.0f} against {1e3 * np.median(varying):.0f} ms; the "
        f"network reads {share:.2f} of the pixels, {1 / share:.1f} times fewer"
    )
    return row(claim, median_ratio(plain, varying), n=len(plain), note=note)


def training(kind: str, folder: Path, batch: int) -> Iterator[Any]:
    """The recipe's training from its first step."""
    variants = recipe("variants")
    variant = variants.VARIANTS[kind]
    network = unet(variant.size, variants.CHANNELS, levels=variant.process.pyramid.levels)
    config = replace(variant.config, batch=batch)
    return train_events(network, variant.process, variants.pictures(variant.size), folder, config, save_every=10**9)


def distances(bench: Runs) -> Iterator[Row]:
    """The gap that is claimed and the distance of every way."""
    runs, config = bench.subject, bench.config
    by_way = {way: [runs.distance(runs.drawn(each)) for each in drawings(config, way)] for way in WAYS}
    plain = by_way["plain"]
    gaps = [one - other for one, other in zip(by_way["varying"], plain, strict=True)]
    baseline, control = float(np.mean(plain)), by_way["subspace"][0] - plain[0]
    target = f"<= {max(plain) - baseline:.4f}"
    beside = {"baseline": baseline, "control": control}
    yield row("dvdp.distance_gap", over_seeds(gaps), target=target, n=len(gaps), note="t interval over seeds", **beside)
    floor = runs.floor(64, config.pictures)
    for way, values in by_way.items():
        by_seed = ", ".join(f"{value:.4f}" for value in values)
        note = f"{LABELS[way]}: {by_seed} by seed; as many real scenes {floor:.4f}"
        yield row(f"dvdp.distance.{way}", over_seeds(values), n=len(values), note=note)


def large_gap(bench: Runs) -> Row:
    """The same at 128 pixels, one seed."""
    runs, count = bench.subject, bench.config.large
    plain, varying = (runs.distance(runs.drawn(each)) for each in large_drawings(bench.config))
    note = f"one seed, {recipe('variants').LARGE.steps} steps, {count} pictures: {varying:.4f} against {plain:.4f}"
    note += f"; real scenes {runs.floor(128, count):.4f}"
    return row("dvdp.distance_gap_128", varying - plain, baseline=plain, n=1, note=note)


def gap_of(pictures: np.ndarray, real: Float[np.ndarray, " frequencies"]) -> float:
    """Mean |log10 of the power over that of real scenes| from a quarter of the sampling frequency on."""
    ratio = np.log10(radial_spectrum(pictures) / real)
    return float(np.abs(ratio[len(real) // 2 :]).mean())


def gaps_of(pictures: np.ndarray, real: Float[np.ndarray, " frequencies"]) -> list[float]:
    """The same for each group of pictures."""
    return [gap_of(pictures[start : start + GROUP], real) for start in range(0, len(pictures), GROUP)]


def details(bench: Runs) -> Iterator[Row]:
    """How far fine detail is from that of real scenes; with rows for what fading gives."""
    runs, config, real = bench.subject, bench.config, bench.subject.spectrum(64)
    floor = float(np.mean(gaps_of(runs.scenes(64).numpy()[: config.pictures], real)))
    by_way = {way: [gaps_of(runs.drawn(each), real) for each in drawings(config, way)] for way in WAYS}
    for way, values in by_way.items():
        everything = np.concatenate([runs.drawn(each) for each in drawings(config, way)])
        power = np.median((radial_spectrum(everything) / real)[len(real) // 2 :])
        note = f"{LABELS[way]}; the median ratio is {power:.2f}; real scenes {floor:.3f}"
        by_seed = [float(np.mean(each)) for each in values]
        yield row(f"dvdp.detail_gap.{way}", over_seeds(by_seed), n=len(by_seed), note=note)
    for way in ("steady", "subspace"):
        one, other = by_way[way][0], by_way["varying"][0]
        note = f"{LABELS[way]}: {np.mean(one):.3f} and {np.mean(other):.3f}"
        yield row(f"dvdp.fading_gain.{way}", paired_bootstrap(one, other), n=len(one), note=note)


def draw_pictures(bench: Runs, _: Sequence[Row]) -> None:
    """docs/images: the spectra, and rows of the same seeds for each way."""
    draw_spectra(bench)
    runs, config = bench.subject, bench.config
    ways = [runs.drawn(drawings(config, way)[0])[:12] for way in WAYS]
    _write("dvdp-samples.png", [runs.scenes(64, held_out=True).numpy()[:12], *ways])
    large = [runs.drawn(each)[:8] for each in large_drawings(config)]
    _write("dvdp-samples-128.png", [runs.scenes(128, held_out=True).numpy()[:8], *large])


def draw_spectra(bench: Runs) -> None:
    """docs/images/dvdp-spectrum.svg: power over that of real scenes."""
    pyplot, real = chart(), bench.subject.spectrum(64)
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for way in WAYS:
        several = [radial_spectrum(bench.subject.drawn(each)) / real for each in drawings(bench.config, way)]
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


def _write(name: str, shown: Sequence[np.ndarray]) -> None:
    sheet = contact_sheet([picture for line in shown for picture in line], columns=len(shown[0]))
    (IMAGES / name).write_bytes(png_bytes(sheet))


BENCHMARKS = (
    Benchmark(
        "dvdp", __doc__, DvdpConfig(), DvdpConfig((0,), 64, 64, 3, 1), CLAIMS, rows, cases, measure,
        open=lambda config, cache: Processes(cache), together=lambda case: case.name, seeds=DvdpConfig().seeds,
        folder="processes", finish=draw_pictures,
    ),
)  # fmt: skip
