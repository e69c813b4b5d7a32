"""Does a conditional model follow somebody else's drawing, one that does not lie on the edges of what it would draw?

    python -m benchmarks hard-sketch        # writes benchmarks/results/hard-sketch.json

Protocol, written before the run. Scenes of two styles without line art of their own (noto, twemoji), by seeds no training saw;
the drawing is OpenMoji's line art of the same things in the same places, whose lines agree with these styles' edges no better
than another thing's do. ``emoji-composer`` draws the caption, from the same noise without the drawing, with it, and with that of
the next scene (control); four steps, no guidance, as in the benchmark ``composer``. Error: 1 less the F1 of lines within a pixel,
to the drawing. Beside it the same for line art in training's own way: OpenMoji scenes with their own lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.generate.composer import CHUNK, SEED, STEPS, Subject
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data import emoji_world, splits
from photopic.data.conditions import Conditions
from photopic.data.extraction import from_picture, line_art
from photopic.data.scenes import Scene, SceneOptions, compose, sample_scene
from photopic.generate.conditions import ComposedConditions
from photopic.metrics.conditions import condition_errors
from photopic.metrics.intervals import paired_bootstrap

STYLE = "openmoji"  # whose line art is drawn
KNOWN = tuple(name for name in sorted(splits.KNOWN) if STYLE in emoji_world.concept(name).styles)
CLAIMS = (
    Claim("composer.hard_sketch", "", "error of lines without somebody else's drawing less that with it"),
    Claim("composer.own_sketch", "", "the same for scenes of the style that the drawing is of"),
    Claim("composer.hard_sketch_caption", "low > -0.05", "text alignment with the drawing less that without"),
)
WAYS = ("without", "with", "next")


@dataclass(frozen=True)
class HardSketchConfig(Config):
    """How much is measured."""

    pictures: Annotated[int, Ge(CHUNK)] = 256  # of each kind of scene
    model: str = "emoji-composer"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """A chunk of scenes, of the drawing's own style or of others."""

    own: bool
    chunk: int


def drawn_scenes(own: bool, chunk: int) -> list[tuple[Scene, np.ndarray]]:
    """Scenes with a drawing each, and one more, whose drawing is the last one's control."""
    options = SceneOptions(KNOWN, (STYLE,) if own else ("noto", "twemoji"), objects=(0.5, 0.5, 0.0, 0.0))
    found: list[tuple[Scene, np.ndarray]] = []
    for index in range(CHUNK + 1):
        scene = sample_scene(options, (SEED, 3, chunk * CHUNK + index))
        same = compose([replace(item, style=STYLE) for item in scene.placements], scene.background)
        lines = line_art(same)
        assert lines is not None, f"{scene.caption}: has no line art"
        found.append((scene, lines))
    return found


def measure(bench: Bench[Any, Subject], case: Case) -> dict[str, list[float]]:
    """Errors of the lines of each picture, and its text alignment, by how it was drawn."""
    subject, scenes = bench.subject, drawn_scenes(case.own, case.chunk)
    captions = [scene.caption for scene, _ in scenes[:CHUNK]]
    wanted = [Conditions(64, {"sketch": lines}) for _, lines in scenes]
    given = {"without": [Conditions(64, {})] * CHUNK, "with": wanted[:CHUNK], "next": wanted[1:]}
    first = SEED + 10_000 + case.chunk * CHUNK
    found: dict[str, list[float]] = {}
    for way in WAYS:
        images = subject.model.generate(
            captions,
            seeds=range(first, first + CHUNK),
            steps=STEPS,
            guidance=1.0,
            scheduler="ddim",
            batch=CHUNK,
            controls=[ComposedConditions(given[way])],
        )
        errors = [condition_errors(from_picture(image), own, image) for image, own in zip(images, wanted, strict=False)]
        found[way] = [each["sketch"] for each in errors]
        found[f"{way} alignment"] = subject.oracle.text_alignment(images, captions).tolist()
    return found


def cases(config: HardSketchConfig) -> list[Case]:
    """Both kinds, in chunks."""
    return [Case(own, chunk) for own in (False, True) for chunk in range(config.pictures // CHUNK)]


def rows(bench: Bench[HardSketchConfig, Subject]) -> Iterator[Row]:
    """All claims."""

    def column(own: bool, way: str) -> np.ndarray:
        return np.concatenate([bench.found(case)[way] for case in cases(bench.config) if case.own is own])

    for claim, own in (("composer.hard_sketch", False), ("composer.own_sketch", True)):
        without, with_it, following = (column(own, way) for way in WAYS)
        gain, control = paired_bootstrap(without, with_it), float((without - following).mean())
        yield row(claim, gain, n=len(without), baseline=without.mean(), control=control)
    told = [column(False, f"{way} alignment") for way in ("with", "without")]
    yield row("composer.hard_sketch_caption", paired_bootstrap(*told), n=len(told[0]), baseline=told[1].mean())


FULL = HardSketchConfig()
BENCHMARKS = (
    Benchmark(
        "hard-sketch",
        __doc__,
        FULL,
        replace(FULL, pictures=CHUNK),
        CLAIMS,
        rows,
        cases,
        measure,
        lambda config, cache: Subject(config.model),
        seeds=(SEED,),
    ),
)
