"""Skeletons of silhouettes whose border is noisy: the network against thinning and pruning, and what its parts are worth.

    python -m benchmarks skeleton           # writes benchmarks/results/skeleton.json
    python -m benchmarks skeleton-128       # 128 pixels and 1,500 steps, rows skeleton_128.*; 40 minutes of one core

Protocol, written before the run. The truth is the pruned skeleton (1.2 radii) of the clean silhouette; what is read is the
silhouette with 5 % of the pixels on either side of its border turned over. 1,200 silhouettes of 64 pixels, of training concepts
in the training styles, a tenth of them to choose the threshold. Arms of a seed share order of pictures, noise and steps, and
weights at the start where they have the same: the network, the network without the distance transform, the network without
context extraction; 500 steps of 8 pictures, three seeds. Measured on 256 silhouettes of held-out concepts and 256 in the
held-out style, noise new and the same for all arms and peers. No setting was tuned: rate and losses are those of
``photopic train skeleton``, which stood before anything was measured. ``skeleton-128`` is the same at 128 pixels with 1,500
steps, as the task was first proposed; it was written down after the smaller one was known and before it ran.

- ``skeleton.f1``: mean over pictures of the strict F1 of the network's thinned output (macro, as the challenge's), mean over seeds;
  the baseline is thinning alone, the control the truth of another shape. ``.style``: in the held-out style.
- ``skeleton.f1_vs_thin_prune``: the network's minus that of thinning with the very pruning that made the truth, picture by picture.
- ``skeleton.f1_vs_smoothed``: the same against a median filter of 3 x 3 pixels before thinning and pruning.
- ``skeleton.distance_transform_gain``: minus the arm without it; the control gives the network the distances of another picture.
- ``skeleton.context_gain``: minus the arm without it; the control gives all branches the same weight at every place.
- ``skeleton.milliseconds``: of the network for a picture, thinning of its output included; the baseline is thinning, the control
  thinning and pruning.

Intervals are a bootstrap over pictures of the mean over seeds; notes have each seed's, the F1 within one pixel, and other noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_interval, side_by_side
from photopic.core.config import Config
from photopic.core.events import last
from photopic.data import emoji_world
from photopic.data.emoji_world import HELD_OUT_STYLE
from photopic.data.skeleton_pairs import SkeletonPairs, emoji_pairs
from photopic.data.skeletons import prune, thin
from photopic.locate.skeleton import smoothed
from photopic.metrics.intervals import bootstrap
from photopic.metrics.skeleton import skeleton_f1
from photopic.models.skeleton_network import SkeletonNetwork, network_inputs
from photopic.train.skeleton import SkeletonConfig, noised, skeleton_network

ARMS: dict[str, dict[str, Any]] = {"network": {}, "no distance": {"distance": False}, "no context": {"dilations": (0,)}}
SETS = {"concepts": "", "style": ".style"}
NOISE, OTHERS = 0.05, (0.1, 0.25)
FRESH = 7000  # first seed of the noise of what is measured
F1, DIFFERENCE = "strict macro F1 on held-out concepts", "F1 on held-out concepts, network minus "
CLAIMS = (
    Claim("skeleton.f1", "", F1),
    Claim("skeleton.f1.style", "", "the same in the held-out style"),
    Claim("skeleton.f1_vs_thin_prune", "low > 0", DIFFERENCE + "thinning and pruning"),
    Claim("skeleton.f1_vs_thin_prune.style", "low > 0", "the same in the held-out style"),
    Claim("skeleton.f1_vs_smoothed", "", DIFFERENCE + "a median filter, thinning and pruning"),
    Claim("skeleton.distance_transform_gain", "low > 0", DIFFERENCE + "one without the distance transform"),
    Claim("skeleton.context_gain", "low > 0", DIFFERENCE + "one without context extraction"),
    Claim("skeleton.milliseconds", "", "of the network, a picture of 64 pixels"),
)
LARGE_CLAIMS = tuple(
    replace(each, id=each.id.replace("skeleton.", "skeleton_128."), statement=each.statement.replace("of 64", "of 128"))
    for each in CLAIMS
)


@dataclass(frozen=True)
class SkeletonBench(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 500  # of each arm
    pictures: Annotated[int, Ge(20)] = 1200  # to learn from
    measured: Annotated[int, Ge(3)] = 256  # of each set
    rounds: Annotated[int, Ge(1)] = 41  # of the timing
    seeds: tuple[int, ...] = (0, 1, 2)  # of weights, order and noise
    side: Annotated[int, Ge(64)] = 64  # of pictures, in pixels


@dataclass(frozen=True)
class Case:
    """One arm, or the peers that learn nothing, with one seed."""

    arm: str
    seed: int
    steps: int
    pictures: int
    measured: int
    side: int


def cases(config: SkeletonBench) -> list[Case]:
    """Every arm with every seed, seed by seed, so that what is interrupted is paired."""
    how = (config.steps, config.pictures, config.measured, config.side)
    return [Case(arm, seed, *how) for seed in config.seeds for arm in (*ARMS, "peers")]


def seed_of(case: Case) -> int:
    """Cases of a seed are one worker's."""
    return case.seed


@cache
def measured_on(name: str, count: int, side: int) -> SkeletonPairs:
    """Held-out concepts in training styles, or concepts that are learnt from in the held-out style."""
    which: dict[str, Any] = {"split": "held_out"} if name == "concepts" else {"styles": (HELD_OUT_STYLE,)}
    return emoji_pairs(count, size=side, **which)


def measure(bench: Bench[SkeletonBench, Any], case: Case) -> dict[str, list[float]]:
    """F1 of every picture, by set, way and noise."""
    ways = PEERS if case.arm == "peers" else trained(case)
    found: dict[str, list[float]] = {}
    for name in SETS:
        data = measured_on(name, case.measured, case.side)
        for noise in (NOISE, *(OTHERS if case.arm in ("peers", "network") and name == "concepts" else ())):
            shapes = noised(data.shapes, noise, np.random.default_rng((FRESH, case.seed)))
            for way, skeletons in ways.items():
                if noise != NOISE and way not in ("network", "thin_prune", "smoothed"):
                    continue
                predicted = skeletons(shapes)
                found[f"{name} {way} {noise}"] = skeleton_f1(predicted, data.skeletons).tolist()
                if noise == NOISE:
                    found[f"{name} {way} near"] = skeleton_f1(predicted, data.skeletons, 1).tolist()
                if way == "network" and noise == NOISE:
                    found[f"{name} other"] = skeleton_f1(predicted, np.roll(data.skeletons, 1, 0)).tolist()
    return found


def trained(case: Case) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The network of an arm, and of the full one what its parts are worth at test time."""
    config = SkeletonConfig(steps=case.steps, batch=8, seed=case.seed, noise=NOISE, **ARMS[case.arm])
    model = last(skeleton_network.events(emoji_pairs(case.pictures, size=case.side), config=config))
    assert isinstance(model, SkeletonNetwork)
    found = {case.arm: lambda shapes: outputs(model, shapes)}
    if case.arm == "network":
        found["wrong distances"] = lambda shapes: outputs(model, shapes, wrong=True)
        found["even attention"] = lambda shapes: outputs(evenly(model), shapes)
    return found


def outputs(model: SkeletonNetwork, shapes: np.ndarray, *, wrong: bool = False) -> np.ndarray:
    """The thinned output; ``wrong`` gives every picture the distances of another."""
    if not wrong:
        chances = model.probability(shapes)
    else:
        pixels = network_inputs(shapes, 2)
        pixels[:, 1] = pixels[:, 1].roll(1, 0)
        with torch.no_grad():
            chances = model.forward(pixels).sigmoid().numpy() * shapes
    return np.stack([thin(each > model.threshold) for each in chances])


def evenly(model: SkeletonNetwork) -> SkeletonNetwork:
    """Its context groups with the same weight for every branch."""
    from copy import deepcopy

    network = deepcopy(model.network)
    for name, parameter in network.named_parameters():
        if ".attention." in name:
            parameter.data.zero_()
    return SkeletonNetwork(network, model.threshold)


def thin_prune(shapes: np.ndarray) -> np.ndarray:
    """Thinning, then the pruning that made the truth."""
    return np.stack([prune(thin(each), each) for each in shapes])


def thinned(shapes: np.ndarray) -> np.ndarray:
    """Thinning alone."""
    return np.stack([thin(each) for each in shapes])


def smoothed_first(shapes: np.ndarray) -> np.ndarray:
    """A median filter over 3 x 3 pixels, thinning and pruning."""
    return thin_prune(np.stack([smoothed(each, 3) for each in shapes]))


PEERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "thin": thinned,
    "thin_prune": thin_prune,
    "smoothed": smoothed_first,
}


def rows(bench: Bench[SkeletonBench, Any]) -> Iterator[Row]:
    """The claims."""

    def of(arm: str, key: str) -> np.ndarray:
        return np.array([bench.found(case)[key] for case in bench.cases if case.arm == arm])  # (seeds, pictures)

    def f1(way: str, name: str = "concepts", noise: object = NOISE) -> np.ndarray:
        arm = "peers" if way in PEERS else way if way in ARMS else "network"
        return of(arm, f"{name} {way} {noise}")

    def gain(claim: str, way: str, name: str = "concepts", control: float | None = None, note: str = "") -> Row:
        paired = f1("network", name) - f1(way, name)
        seeds = ", ".join(f"{each:.3f}" for each in paired.mean(1))
        near = f1("network", name, "near").mean() - f1(way, name, "near").mean()
        return row(
            claim, bootstrap(paired.mean(0)), n=paired.shape[1], baseline=float(f1(way, name).mean()), control=control,
            note=f"by seed {seeds}; within one pixel {near:+.3f}{note}",
        )  # fmt: skip

    def at(noise: float) -> str:
        values = ", ".join(
            f"{f1(way, noise=noise).mean():.3f} {way.replace('_', ' + ')}"
            for way in ("network", "thin_prune", "smoothed")
        )
        return f"noise {noise:.0%}: {values}"

    for name, ending in SETS.items():
        scores = f1("network", name)
        note = f"within one pixel {f1('network', name, 'near').mean():.3f}"
        note += (
            f"; {groups(measured_on(name, bench.config.measured, bench.config.side), scores.mean(0))}"
            if name == "concepts"
            else ""
        )
        yield row(
            f"skeleton.f1{ending}", bootstrap(scores.mean(0)), n=scores.shape[1], baseline=float(f1("thin", name).mean()),
            control=float(of("network", f"{name} other").mean()), note=note,
        )  # fmt: skip
        control = float((of("network", f"{name} other") - f1("thin_prune", name)).mean())
        others = "; " + "; ".join(at(noise) for noise in OTHERS) if name == "concepts" else ""
        yield gain(f"skeleton.f1_vs_thin_prune{ending}", "thin_prune", name, control, others)
    yield gain("skeleton.f1_vs_smoothed", "smoothed")
    for claim, arm, broken in (
        ("skeleton.distance_transform_gain", "no distance", "wrong distances"),
        ("skeleton.context_gain", "no context", "even attention"),
    ):
        yield gain(
            claim, arm, control=float((f1(broken) - f1("network")).mean()), note=f"; control: {broken} in the network"
        )
    yield from timed(bench)


def groups(data: SkeletonPairs, scores: np.ndarray) -> str:
    """Mean F1 of each group of emoji."""
    named = [emoji_world.concept(each.partition("/")[0]).group for each in data.names]
    means = {each: scores[[name == each for name in named]].mean() for each in dict.fromkeys(named)}
    return ", ".join(f"{name} {mean:.2f}" for name, mean in sorted(means.items(), key=lambda item: -item[1]))


def timed(bench: Bench[SkeletonBench, Any]) -> Iterator[Row]:
    """Milliseconds a picture, all ways in turns."""
    config, shapes = (
        SkeletonConfig(steps=1, seed=0),
        measured_on("concepts", bench.config.measured, bench.config.side).shapes[:16],
    )
    model = last(skeleton_network.events(emoji_pairs(20, size=bench.config.side), config=config))
    assert isinstance(model, SkeletonNetwork)
    shapes = noised(shapes, NOISE, np.random.default_rng(FRESH))
    ways: list[Callable[[], object]] = [
        lambda: outputs(model, shapes),
        lambda: thinned(shapes),
        lambda: thin_prune(shapes),
    ]
    network, thinning, pruning = (
        median_interval([1000 * each / len(shapes) for each in times])
        for times in side_by_side(ways, bench.config.rounds, warm_up=2)
    )
    note = f"one thread; thinning {thinning.value:.2f} ms, thinning and pruning {pruning.value:.2f} ms"
    yield row(
        "skeleton.milliseconds", network, n=bench.config.rounds, baseline=thinning.value, control=pruning.value,
        note=note,
    )  # fmt: skip


def large_rows(bench: Bench[SkeletonBench, Any]) -> Iterator[Row]:
    """The same rows under names of their own."""
    return (replace(each, claim=each.claim.replace("skeleton.", "skeleton_128.")) for each in rows(bench))


FULL = SkeletonBench()
LARGE = SkeletonBench(steps=1500, side=128)
BENCHMARKS = (
    Benchmark(
        "skeleton-128",
        __doc__,
        LARGE,
        replace(LARGE, steps=2, pictures=20, measured=3, rounds=2, seeds=(0,)),
        LARGE_CLAIMS,
        large_rows,
        cases,
        measure,
        seeds=LARGE.seeds,
    ),
    Benchmark(
        "skeleton",
        __doc__,
        FULL,
        replace(FULL, steps=2, pictures=20, measured=3, rounds=2, seeds=(0,)),
        CLAIMS,
        rows,
        cases,
        measure,
        together=seed_of,
        seeds=FULL.seeds,
    ),
)
