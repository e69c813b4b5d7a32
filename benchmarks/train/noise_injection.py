"""What the three noise layers do to small generators of the same seed and budget: conditioning, inversion, where noise acts.

    python -m benchmarks noise-injection     # writes benchmarks/results/noise-injection.json

Protocol, written before the run. Generators of 32 pixels (16 to 96 channels, latents of 32 numbers) learn by ``photopic train
generator`` from 1,024 faces of the world INDEP in 500 steps of 16 pictures; arms ``none``, ``add`` (StyleGAN2's) and
``gated`` (arXiv:2006.05891, the recommended options) share weights, order and latents of a seed; seeds 0, 1 and 2. Nothing
was chosen by the outcome. Noise is frozen in every measurement.

- ``gan.noise.spatial``: of the gated generators, share of layers whose gate varies over the picture (standard deviation over
  mean size of sigma of 0.1 or more, meaned over 64 pictures). A claim with a target; the control is the untrained generator.
- ``gan.noise.condition`` and ``gan.noise.condition_worst``: mean of c = (|G(w + e) - G(w)| / |G(w)|) / (|e| / |w|), |e| =
  1e-4 |w|, over 1,000 w, and over the worst 20 of them (MC and TTMC of the paper, its shares); gated over add. Reported.
- ``gan.noise.inversion`` and ``gan.noise.inversion_vs_none``: mean squared error of 16 held-out faces after 150 steps in W+
  (rate 0.05) from the mean, gated over add, and add over none. Reported, as are the errors and Fréchet distances of each arm in the
  notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.data.gan_worlds import faces
from photopic.data.pixels import to_pixels
from photopic.metrics.frechet import frechet_distance
from photopic.metrics.intervals import student
from photopic.models.dual_encoder import DualEncoder
from photopic.models.generator import Generator
from photopic.train.adversarial.noise_injection import AdversarialLearner, NoiseInjectionConfig
from photopic.tune.latent.inversion import InversionConfig, inverted

ARMS = ("none", "add", "gated")
SIDE, HELD = 32, 90_000  # pixels; seed of held-out faces, plus the arm's
CLAIMS = (
    Claim("gan.noise.spatial", ">= 0.5", "share of the layers whose gate varies over the picture by a tenth or more"),
    Claim("gan.noise.condition", "", "mean condition number (MC) of gated generators over that of StyleGAN2's noise"),
    Claim("gan.noise.condition_worst", "", "the same of the worst 2 % (TTMC)"),
    Claim("gan.noise.inversion", "", "error of held-out faces in W+: gated over StyleGAN2's noise"),
    Claim("gan.noise.inversion_vs_none", "", "the same: StyleGAN2's noise over none"),
)  # fmt: skip


@dataclass(frozen=True)
class NoiseBench(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 500  # of training
    pictures: Annotated[int, Ge(8)] = 1024  # to learn from
    draws: Annotated[int, Ge(50)] = 1000  # w of condition numbers
    held: Annotated[int, Ge(1)] = 16  # faces that are inverted
    search: Annotated[int, Ge(1)] = 150  # steps of each inversion
    seeds: tuple[int, ...] = (0, 1, 2)  # of weights, order and latents


@dataclass(frozen=True)
class Case:
    """One arm with one seed."""

    arm: Any
    seed: int
    config: NoiseBench


def cases(config: NoiseBench) -> list[Case]:
    """Every arm with every seed, seed by seed."""
    return [Case(arm, seed, config) for seed in config.seeds for arm in ARMS]


def measure(bench: Bench[NoiseBench, Any], case: Case) -> dict[str, float]:
    """Train one generator and look into it."""
    config = case.config
    scenes = torch.from_numpy(to_pixels(faces(config.pictures, case.seed, size=SIDE).pictures))
    how = NoiseInjectionConfig(
        noise=case.arm, size=SIDE, latent=32, steps=config.steps, mapping_rate=0.1, average=0.99, seed=case.seed
    )
    learner = AdversarialLearner(scenes, how)
    fresh = learner.model()
    for step in range(config.steps):
        learner.step(step)
    model = learner.model()
    held = faces(max(config.held, 500), HELD + case.seed, size=SIDE).pictures
    search = InversionConfig(start="mean", steps=config.search, lr=0.05, tuning_steps=0)
    found = finished(inverted(model, held[: config.held], search))
    drawn, embed = model.generate(len(held), seed=1), DualEncoder.load("emoji-clip-cnn", device="cpu")
    features = [embed.image_features(each).numpy() for each in (to_pixels(held), drawn)]
    numbers = condition_numbers(model, config.draws)
    return {
        "inversion": found.errors["search"], "start": found.errors["start"], "distance": frechet_distance(*features),
        "condition": float(numbers.mean()), "worst": float(numbers.sort().values[-max(1, len(numbers) // 50) :].mean()),
        "spatial": spatial(model) if case.arm == "gated" else 0.0, "fresh": spatial(fresh) if case.arm == "gated" else 0.0,
    }  # fmt: skip


@torch.no_grad()
def condition_numbers(model: Generator, count: int) -> Tensor:
    """Relative change of the picture over relative change of w, in float64."""
    precise = Generator(model.mapping.double(), model.synthesis.double(), model.config)
    found = []
    for first in range(0, count, 50):
        w = precise.map(precise.sample_z(50, seed=2, start=first))
        way = precise.map(precise.sample_z(50, seed=3, start=first)) - w
        moved = w + 1e-4 * way * (w.norm(dim=1) / way.norm(dim=1))[:, None]
        before, after = (precise.synthesize(each).flatten(1) for each in (w, moved))
        found.append((after - before).norm(dim=1) / before.norm(dim=1) / 1e-4)
    model.mapping.float()
    model.synthesis.float()
    return torch.cat(found)


@torch.no_grad()
def spatial(model: Generator) -> float:
    """Share of the layers whose gate's standard deviation over the picture is a tenth of its mean size or more."""
    seen: dict[int, list[float]] = {}
    handles = [
        layer.gate.register_forward_hook(  # type: ignore[union-attr]  # gated: every layer has one
            lambda gate, given, made, place=place: seen.setdefault(place, []).extend(
                (gate.sigma(given[0]).std((1, 2, 3)) / gate.sigma(given[0]).abs().mean((1, 2, 3))).tolist()
            )
        )
        for place, layer in enumerate(model.synthesis.convs)
    ]
    model.generate(64, seed=4)
    for handle in handles:
        handle.remove()
    return float(np.mean([np.mean(each) >= 0.1 for each in seen.values()]))


def rows(bench: Bench[NoiseBench, Any]) -> Iterator[Row]:
    """The claims."""

    def of(arm: str, what: str) -> np.ndarray:
        return np.array([bench.found(case)[what] for case in bench.cases if case.arm == arm])

    seeds = len(bench.config.seeds)
    yield row(
        "gan.noise.spatial", interval(of("gated", "spatial")), n=seeds, control=float(of("gated", "fresh").mean())
    )
    for name, what, over, under in (
        ("condition", "condition", "gated", "add"),
        ("condition_worst", "worst", "gated", "add"),
        ("inversion", "inversion", "gated", "add"),
        ("inversion_vs_none", "inversion", "add", "none"),
    ):
        note = ", ".join(f"{arm} {of(arm, what).mean():.4f}" for arm in ARMS)
        if name == "inversion":
            note += "; toy Fréchet distance " + ", ".join(f"{arm} {of(arm, 'distance').mean():.3f}" for arm in ARMS)
        ratios = of(over, what) / of(under, what)
        yield row(f"gan.noise.{name}", interval(ratios), n=seeds, baseline=float(of(under, what).mean()), note=note)


def interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and Student's interval; of one seed, or of equal values, the mean alone."""
    if len(values) == 1 or np.ptp(values) == 0:
        return float(values.mean()), None, None
    mean, low, high = student(values.tolist())
    return mean, low, high


FULL = NoiseBench()
QUICK = replace(FULL, steps=4, pictures=16, draws=50, held=2, search=3, seeds=(0,))
BENCHMARKS = (Benchmark("noise-injection", __doc__, FULL, QUICK, CLAIMS, rows, cases, measure, seeds=FULL.seeds),)
