"""The bundled generator ``emoji-gan``: how near its pictures are to the faces it learnt from, and how well it draws others.

    python -m benchmarks emoji-gan     # writes benchmarks/results/emoji-gan.json

Protocol, written before anything was measured. Features are those of the bundled ``emoji-clip-cnn``'s image
embedding, which took no part in training (the discriminator reads ``emoji-resnet-64-0``).

- ``gan.distance_vs_floor``: Fréchet distance of 2,048 drawn pictures to 2,048 fresh faces, over that of two sets of 2,048
  fresh faces; three seeds of all three sets. The control is the same generator before training.
- ``gan.inversion.search`` and ``gan.inversion.tuned``: mean squared error (-1 to 1) of 12 faces that no bundled model has
  seen, after the search in W+ and after pivotal tuning of each alone; the baseline is what the encoder's start draws, the
  control the mean picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.data.emoji_faces import emoji_faces
from photopic.metrics.frechet import frechet_distance
from photopic.metrics.intervals import student
from photopic.models.dual_encoder import DualEncoder
from photopic.models.generator import Generator
from photopic.tune.latent.inversion import InversionConfig, inverted

CLAIMS = (
    Claim(
        "gan.distance_vs_floor", "<= 3", "toy Fréchet distance of drawn faces to real ones over that of real to real"
    ),
    Claim("gan.inversion.search", "", "mean squared error of faces never seen, after the search in W+"),
    Claim("gan.inversion.tuned", "", "the same after pivotal tuning"),
)


@dataclass(frozen=True)
class GeneratorBench(Config):
    """How much is measured."""

    pictures: Annotated[int, Ge(64)] = 2048  # in each set
    held: Annotated[int, Ge(2)] = 12  # faces that are inverted
    search: Annotated[int, Ge(1)] = 200  # steps of each search
    tuning: Annotated[int, Ge(1)] = 100  # steps of each tuning
    seeds: tuple[int, ...] = (0, 1, 2)  # of the sets


@dataclass(frozen=True)
class Case:
    """One seed of the sets, or one face."""

    kind: str
    seed: int
    config: GeneratorBench


def cases(config: GeneratorBench) -> list[Case]:
    """The sets, then the faces."""
    sets = [Case("sets", seed, config) for seed in config.seeds]
    return sets + [Case("face", index, config) for index in range(config.held)]


def measure(bench: Bench[GeneratorBench, Any], case: Case) -> dict[str, float]:
    """Distances of a seed, or errors of a face."""
    model, config = Generator.load("emoji-gan", device="cpu"), case.config
    if case.kind == "face":
        face = (
            torch.from_numpy(emoji_faces(case.seed + 1, 70_000, "held_out")[-1:].copy()).permute(0, 3, 1, 2).float()
            / 127.5
            - 1
        )
        how = InversionConfig(steps=config.search, tuning_steps=config.tuning)
        errors = finished(inverted(model, face, how)).errors
        with torch.no_grad():
            mean = float((model.synthesize(model.mean_w[None]) - face).square().mean())
        return errors | {"mean": mean}
    embed, n = DualEncoder.load("emoji-clip-cnn", device="cpu"), config.pictures
    fresh = Generator.fresh(model.config)
    real, other = (emoji_faces(n, 80_000 + 2 * case.seed + k) for k in (0, 1))
    sets = {
        "floor": other,
        "drawn": model.generate(n, seed=100 + case.seed),
        "control": fresh.generate(n, seed=100 + case.seed),
    }
    reference = embed.image_features(real).numpy()
    return {name: frechet_distance(reference, embed.image_features(each).numpy()) for name, each in sets.items()}


def rows(bench: Bench[GeneratorBench, Any]) -> Iterator[Row]:
    """The claims."""

    def of(kind: str, what: str) -> np.ndarray:
        return np.array([bench.found(case)[what] for case in bench.cases if case.kind == kind])

    floor, drawn, control = (of("sets", what) for what in ("floor", "drawn", "control"))
    note = f"drawn {drawn.mean():.4f}, floor {floor.mean():.4f}"
    yield row(
        "gan.distance_vs_floor", interval(drawn / floor), n=bench.config.pictures, baseline=1.0,
        control=float((control / floor).mean()), note=note,
    )  # fmt: skip
    faces, start, mean = bench.config.held, float(of("face", "start").mean()), float(of("face", "mean").mean())
    yield row("gan.inversion.search", interval(of("face", "search")), n=faces, baseline=start, control=mean)
    note = f"mean squared change of other pictures {of('face', 'drift').mean():.4f}"
    yield row("gan.inversion.tuned", interval(of("face", "tuning")), n=faces, baseline=start, control=mean, note=note)


def interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and Student's interval; of one value the value alone."""
    if len(values) == 1:
        return float(values[0]), None, None
    mean, low, high = student(values.tolist())
    return mean, low, high


FULL = GeneratorBench()
QUICK = replace(FULL, pictures=64, held=2, search=3, tuning=2, seeds=(0,))
BENCHMARKS = (Benchmark("emoji-gan", __doc__, FULL, QUICK, CLAIMS, rows, cases, measure, seeds=FULL.seeds),)
