"""What a guard costs beside plain passes of its classifier: one picture, a batch, fitting, exact scores and verdicts.

    python -m benchmarks guard-costs              # writes benchmarks/results/guard-costs.json

The bundled classifier `emoji-resnet-64-0` with both checks, fitted on renderings it never saw. All calls are timed in turns, in CPU
seconds of one thread; a plain pass is the network alone on pictures that are prepared already, so that reading packages, preparing
pictures and everything a verdict needs count against the guard. The firewall alone is timed on networks that badnets attacked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.guard.firewall import WALLS, attacked, fitted
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.data import renderings
from photopic.guard.guarded import guarded
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

MODEL = "emoji-resnet-64-0"
SEED = 0
CPU = time.thread_time  # others may use the machine: what they take counts for none
CLAIMS = (
    Claim("guard.one_picture_vs_forward", "<= 6", "a picture judged alone, over a plain pass of it"),
    Claim("guard.batch64_vs_forward", "", "64 pictures judged at once, over a plain pass of the 64"),
    Claim("guard.batch64_ms", "", "64 pictures judged at once", "ms"),
    Claim("guard.fit_vs_forward", "<= 4", "fitting, over a plain pass of every calibration picture"),
    Claim("firewall.cost_vs_forward", "<= 2.5", "five members and the plain pass, over one plain pass"),
    Claim(
        "firewall.cost_vs_naive", "<= 0.6", "the worst k, of exact scores, over six plain passes; verdicts stop early"
    ),
    Claim("firewall.verdict_cost_vs_naive.digits", "<= 0.45", "clean pictures, verdicts alone, over six plain passes"),
    Claim("firewall.verdict_cost_vs_naive.emoji", "<= 0.3", "clean pictures, verdicts alone, over six plain passes"),
)


@dataclass(frozen=True)
class CostsConfig(Config):
    """How much is measured."""

    clean: Annotated[int, Ge(100)] = 400  # pictures it is fitted on
    rounds: Annotated[int, Ge(1)] = 41  # of each call, in turns
    fits: Annotated[int, Ge(1)] = 7  # of fits, scores and verdicts, in turns with plain passes
    datasets: tuple[str, ...] = ("digits", "emoji")  # of the attacked networks


def passes(model: Classifier, pixels: torch.Tensor, count: int = 1) -> None:
    """Plain passes."""
    with torch.no_grad():
        for _ in range(count):
            model.forward(pixels)


def score_costs(rounds: int) -> Iterator[Row]:
    """Time of scores with five members on a ResNet-18-shaped network, for every first member, side by side with plain passes."""
    torch.manual_seed(0)
    shape = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=10)
    prepare = Preprocessing(resize=(64, 64))
    model = Classifier(ResNetForImageClassification(shape), preprocess=prepare, labels=[str(i) for i in range(10)])
    pixels = model.preprocess(np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8))
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    wall = ScalingConsistency(model, ScalingConsistencyConfig(threshold=0.9, error_bound=0.01)).fit(
        images, model.logits(images).argmax(1).numpy()
    )
    assert wall.fitted is not None
    layers, ratios = len(wall.fitted.layers), {}
    for first in range(1, layers - 3):
        wall.fitted = replace(wall.fitted, first=first, sizes=tuple(range(first, first + 5)))
        scores, plain = side_by_side(
            [partial(wall.assess, pixels), partial(passes, model, pixels)], rounds, warm_up=0, clock=CPU
        )
        ratios[first] = median_ratio(scores, plain)
    allowed = max((first for first, each in ratios.items() if each.value <= 2.5), default=0)
    curve = ", ".join(f"k={first}: {each.value:.2f}" for first, each in ratios.items())
    note = f"within 2.5 up to k={allowed} of {layers} layers; {curve}"
    yield row("firewall.cost_vs_forward", ratios[1].value, n=rounds, note=note)
    yield row("firewall.cost_vs_naive", max(each.value for each in ratios.values()) / 6, n=rounds)


def verdict_costs(dataset: str, wall: ScalingConsistency, images: np.ndarray, rounds: int) -> Row:
    """Members that a verdict needs on clean traffic, and the time of verdicts over that of six plain passes."""
    assert wall.fitted is not None
    fit, pixels = wall.fitted, wall.model.preprocess(images)
    ran = [verdict.evidence["members"] for verdict in wall.predict(images)]
    plain = partial(passes, wall.model, pixels, len(fit.sizes) + 1)
    ours, naive = side_by_side([partial(wall.assess, pixels, fit.bound), plain], rounds, warm_up=0, clock=CPU)
    note = f"k={fit.first} of {len(fit.layers)}; members a picture {np.mean(ran):.2f} of {len(fit.sizes)}"
    return row(f"firewall.verdict_cost_vs_naive.{dataset}", median_ratio(ours, naive).value, n=rounds, note=note)


def guard_costs(config: CostsConfig) -> Iterator[Row]:
    """One picture, a batch and fitting."""
    guard = guarded(MODEL)
    pairs = np.random.default_rng(SEED).permutation(np.array(renderings.held_out_pairs()))
    clean = [(str(name), str(style)) for name, style in pairs[: config.clean]]
    pictures = renderings.pictures(clean)
    labels = [guard.model.labels.index(name) for name, _ in clean]
    prepared = guard.model.preprocess(pictures)  # (clean, 3, h, w)

    def plain() -> None:
        for start in range(0, len(prepared), 64):
            passes(guard.model, prepared[start : start + 64])

    fit, forward = side_by_side([partial(guard.fit, pictures, labels), plain], config.fits, warm_up=1, clock=CPU)
    note = f"{config.clean} pictures; {median(fit):.2f} s against {median(forward):.2f} s"
    yield row("guard.fit_vs_forward", median_ratio(fit, forward), n=config.fits, note=note)

    others = renderings.pictures([(str(name), str(style)) for name, style in pairs[config.clean : config.clean + 64]])
    ready = guard.model.preprocess(others)
    judged, batch, one, many = side_by_side(
        [
            partial(guard, others[:1]),
            partial(guard, others),
            partial(passes, guard.model, ready[:1]),
            partial(passes, guard.model, ready),
        ],
        config.rounds,
        warm_up=3,
        clock=CPU,
    )
    times = [1e3 * median(each) for each in (judged, one, batch, many)]
    note = f"{times[0]:.1f} ms against {times[1]:.1f} ms"
    yield row("guard.one_picture_vs_forward", median_ratio(judged, one), n=config.rounds, note=note)
    note = f"{times[2]:.0f} ms against {times[3]:.0f} ms"
    yield row("guard.batch64_vs_forward", median_ratio(batch, many), n=config.rounds, note=note)
    yield row("guard.batch64_ms", times[2], n=config.rounds)


def rows(bench: Bench[CostsConfig, ResultCache]) -> Iterator[Row]:
    """All claims."""
    config = bench.config
    yield from guard_costs(config)
    yield from score_costs(config.fits)
    for dataset in config.datasets:
        data, model = attacked(bench.subject, dataset)
        yield verdict_costs(
            dataset, fitted(model, WALLS["resnet"]["ibd_psc"], data.clean), data.test[0][:256], config.fits
        )


BENCHMARKS = (
    Benchmark(
        "guard-costs", __doc__, CostsConfig(), CostsConfig(100, 3, 1, ()), CLAIMS, rows, open=lambda config, cache: cache,
        seeds=(SEED,), folder="firewall",
    ),
)  # fmt: skip
