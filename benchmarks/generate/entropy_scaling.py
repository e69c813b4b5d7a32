"""Does entropy scaling keep attention as sharp, and the number of objects right, at twice the cells?

    python -m benchmarks entropy-scaling         # writes benchmarks/results/entropy-scaling.json

Prompts of one known thing on a flat background are drawn 64x128, wide and tall in turn: plainly, scaled, and scaled the other way
(the control). Patches that stand out from the background are counted; the truth is one. The mean entropy of self-attention is
measured at the trained size, at twice and at half the cells, with the same prompts and seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.core.nn.attention import Place
from photopic.core.sampling import Control, Step
from photopic.data import scenes, splits
from photopic.generate.guidance.entropy_scaling import EntropyMeter, EntropyScaling
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.layout import foreground, patches

SEED, SIZE = 9_700_000, 16  # of the samples; pictures of a batch
SPECK = 0.005  # share of a picture from which on a patch is a thing
DRIFT = "share by which the mean entropy of self-attention, scaled, is away from the trained size's; baseline: plain"
CLAIMS = (
    Claim("entropy_scaling.count_error_gain", "low > 0", "|things - 1| at twice the cells, plain minus scaled"),
    Claim("entropy_scaling.count_error_gain_reversed", "", "the same with attention flattened by as much"),
    Claim("entropy_scaling.alignment_change", "", "oracle text alignment at twice the cells, scaled minus plain"),
    Claim("entropy_scaling.entropy_drift_double", "<= 0.05", f"twice the cells: {DRIFT}"),
    Claim("entropy_scaling.entropy_drift_half", "<= 0.05", f"half the cells: {DRIFT}"),
)


@dataclass(frozen=True)
class EntropyBenchConfig(Config):
    """How much is measured."""

    batches: Annotated[int, Ge(1)] = 16  # of 16 pictures, plain and scaled
    flattened: Annotated[int, Ge(0)] = 16  # of them also scaled the other way
    metered: Annotated[int, Ge(1)] = 4  # of them also with entropies, at each size
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Batch:
    """Pictures drawn together ``plain``, ``scaled`` or ``reversed``, at ``native``, ``double`` or ``half`` the cells."""

    number: int
    way: str
    cells: str = "double"
    metered: bool = False


class Reversed(EntropyScaling):
    """Divides by the factor."""

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, place: Place, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        sharper, key, value = super().qkv(query, key, value, place, step)
        return query * (query.norm() / sharper.norm()), key, value


def prompt(number: int) -> str:
    """A known concept on a background."""
    name = np.random.default_rng((17, number)).choice(sorted(splits.KNOWN))
    return f"{scenes.with_article(str(name))} on {scenes.with_article(COLOURS[number % 12] + ' background')}"


def measure(bench: Bench[Any, JudgedModel], batch: Batch) -> dict[str, Any]:
    """``error`` and ``alignment``, one a picture, or the mean ``entropy`` in nats."""
    judge, first = bench.subject, batch.number * SIZE
    said = [prompt(first + index) for index in range(SIZE)]
    controls: list[Control] = {"scaled": [EntropyScaling()], "reversed": [Reversed()]}.get(batch.way, [])  # type: ignore[assignment]
    side = judge.model.image_size
    long, short = {"double": (2 * side, side), "half": (side, side // 2)}.get(batch.cells, (side, side))
    width, height = (long, short) if batch.number % 2 == 0 else (short, long)
    meter = EntropyMeter()
    asked = [*controls, meter] if batch.metered else controls
    images = judge.drawn(said, range(SEED + first, SEED + first + SIZE), controls=asked, width=width, height=height)
    if batch.metered:
        return {"entropy": meter.mean}
    counts = [sum(patch.mean() >= SPECK for patch in patches(mask)) for mask in foreground(images)]
    alignment = judge.oracle.text_alignment(judge.oracle.score(images), said)
    return {"error": [abs(int(count) - 1) for count in counts], "alignment": alignment.tolist()}


def batches(config: EntropyBenchConfig) -> list[Batch]:
    """Everything that is drawn."""
    found = [Batch(number, way) for number in range(config.batches) for way in ("plain", "scaled")]
    found += [Batch(number, "reversed") for number in range(config.flattened)]
    sizes = (("plain", "native"), ("plain", "double"), ("scaled", "double"), ("plain", "half"), ("scaled", "half"))
    return found + [Batch(number, *each, metered=True) for number in range(config.metered) for each in sizes]


def rows(bench: Bench[EntropyBenchConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    whole = bench.config.batches
    found = {
        way: [bench.found(Batch(number, way)) for number in range(count)]
        for way, count in (("plain", whole), ("scaled", whole), ("reversed", bench.config.flattened))
    }

    def column(way: str, what: str) -> np.ndarray:
        return np.concatenate([each[what] for each in found[way]])

    plain = column("plain", "error")
    for way, ending in (("scaled", ""), ("reversed", "_reversed"))[: 2 if bench.config.flattened else 1]:
        error = column(way, "error")
        gain = paired_bootstrap(plain[: len(error)], error)
        yield row(f"entropy_scaling.count_error_gain{ending}", gain, baseline=plain.mean(), n=len(error))
    change = paired_bootstrap(column("scaled", "alignment"), column("plain", "alignment"))
    yield row("entropy_scaling.alignment_change", change, n=len(plain))
    for cells in ("double", "half"):
        drift = {
            way: [
                abs(bench.found(Batch(number, way, cells, True))["entropy"] / native - 1)
                for number in range(bench.config.metered)
                for native in [bench.found(Batch(number, "plain", "native", True))["entropy"]]
            ]
            for way in ("plain", "scaled")
        }
        n = SIZE * bench.config.metered
        scaled, usual = bootstrap(drift["scaled"])[0], float(np.mean(drift["plain"]))
        yield row(f"entropy_scaling.entropy_drift_{cells}", scaled, baseline=usual, n=n)


BENCHMARKS = (
    Benchmark(
        "entropy-scaling", __doc__, EntropyBenchConfig(), EntropyBenchConfig(1, 0), CLAIMS, rows, batches, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(17, SEED),
    ),
)  # fmt: skip
