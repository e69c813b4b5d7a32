"""How fast are pictures taken apart into conditions?

    python -m benchmarks conditions        # writes benchmarks/results/conditions.json

Protocol, written before the run. Scenes of one to four known things, drawn before the clock starts; one thread; seconds of the
processor, because this machine is shared. Nothing is chosen.

- ``conditions.scenes_per_second``: all that is exact of a scene (caption, palette, sketch, instances, depth, intensity, masked) at
  128 pixels, 200 scenes, median over 5 rounds; of one core, where two were allowed. The embedding is no part: a network makes it.
- ``conditions.palette_vs_plain``: the same histogram by scikit-image and numpy written plainly (all pixels' distances to all
  colours, ``argmin``, ``bincount``) over ours, in turns, 10 scenes of 128 pixels. The results are equal, which is checked.
- ``conditions.palette_vs_loop``: the same against a loop over pixels in Python, on the first 2 of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from skimage.color import rgb2lab

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_interval, median_ratio, side_by_side
from photopic.core.config import Config
from photopic.data import emoji_world
from photopic.data.extraction import from_scene, random_hidden
from photopic.data.palette import BINS, colours_lab, nearest_colours
from photopic.data.scenes import Scene, SceneOptions, sample_scene

CLAIMS = (
    Claim(
        "conditions.scenes_per_second",
        ">= 50",
        "scenes of 128 pixels a second, all that is exact, one core",
        "scenes/s",
    ),
    Claim("conditions.palette_vs_plain", ">= 2", "times as fast as scikit-image and numpy written plainly", "x"),
    Claim("conditions.palette_vs_loop", ">= 20", "times as fast as a loop over pixels", "x"),
)
SIZE = 128


@dataclass(frozen=True)
class ConditionsBenchConfig(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(4)] = 200  # taken apart in a round
    compared: Annotated[int, Ge(2)] = 10  # whose palettes are compared
    rounds: Annotated[int, Ge(2)] = 5  # of each


def scenes(count: int) -> list[Scene]:
    """Of one to four things that the bundled models know."""
    known = tuple(item.name for item in emoji_world.select(split="known"))
    return [sample_scene(SceneOptions(concepts=known, size=SIZE), (2_302, 9, index)) for index in range(count)]


def plain(image: np.ndarray) -> np.ndarray:
    """As one writes it down."""
    apart = np.square(rgb2lab(image).reshape(-1, 1, 3) - colours_lab()).sum(-1)
    return np.bincount(apart.argmin(1), minlength=BINS)


def loop(image: np.ndarray) -> np.ndarray:
    """Pixel by pixel."""
    counts, lab = np.zeros(BINS, int), rgb2lab(image)
    for line in lab:
        for pixel in line:
            counts[np.square(colours_lab() - pixel).sum(1).argmin()] += 1
    return counts


def measure(bench: Bench[Any, Any], case: ConditionsBenchConfig) -> dict[str, Any]:
    """Scenes a second of each round, and what the other ways take over ours."""
    drawn, hidden, found = scenes(case.scenes), random_hidden(np.random.default_rng(0), SIZE), []
    for _ in range(case.rounds + 1):  # the first warms up
        began = time.process_time()
        for each in drawn:
            from_scene(each, hidden=hidden)
        found.append(len(drawn) / (time.process_time() - began))
    few = [each.image for each in drawn[: case.compared]]
    for other in (plain, loop):
        assert all((other(each) == nearest_colours(each)).all() for each in few[:2])
    return {
        "per_second": found[1:],
        "plain": _over(plain, few, case.rounds),
        "loop": _over(loop, few[:2], case.rounds),
    }


def _over(other: Callable[[np.ndarray], object], images: list[np.ndarray], rounds: int) -> list[float]:
    calls = [lambda each=each: [each(image) for image in images] for each in (other, nearest_colours)]
    theirs, ours = side_by_side(calls, rounds, warm_up=1, clock=time.process_time)
    return list(median_ratio(theirs, ours))


def rows(bench: Bench[ConditionsBenchConfig, Any]) -> Iterator[Row]:
    """All claims."""
    found, config = bench.found(bench.cases[0]), bench.config
    assert median(found["per_second"]) > 0
    yield row("conditions.scenes_per_second", median_interval(found["per_second"]), n=config.scenes)
    yield row("conditions.palette_vs_plain", found["plain"], n=config.compared)
    yield row("conditions.palette_vs_loop", found["loop"], n=2)


FULL = ConditionsBenchConfig()
BENCHMARKS = (
    Benchmark(
        "conditions",
        __doc__,
        FULL,
        replace(FULL, scenes=10, compared=4, rounds=2),
        CLAIMS,
        rows,
        lambda c: [c],
        measure,
    ),
)
