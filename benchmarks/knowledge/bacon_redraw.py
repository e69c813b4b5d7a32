"""Does a picture drawn again from its graph keep more of its facts than one drawn from its flat caption? Judged by the oracle.

    python -m benchmarks bacon-redraw     # writes benchmarks/results/bacon-redraw.json

**Protocol, written before the first run.** 160 scenes of two (half of them), three or four things that ``emoji-diffusion``
knows, in the two styles that it draws, a sixth of the things tinted; no concept occurs twice and no two share a word ("hot dog"
beside "dog"). Drawn with emoji-diffusion, 16 steps, guidance 4, the same seed in every way:

* ``caption``, the baseline: the scene's own caption with every style named, no layout;
* ``graph``: the sentence and the layout of the exact graph, at the recommended settings of layout guidance;
* ``shuffled``, the control: the same sentence with the regions of the next scene of as many things;
* ``written caption`` and ``written graph``: the same two from what the bundled captioner and its baseline of equal training
  (``bacon-captions``) write of the picture; a text that names nothing draws nothing and keeps no fact.

The facts of a scene: each thing is there, has its style, has its tint where it has one; the colours and kind of the background;
each relation of the graph. The oracle says the probability of each; above one half it is kept, a relation where the oracle sees
it between two things that are there. A picture's score is the share of its facts that are kept. ``bacon.redraw_facts_gain`` is
graph minus caption, paired over pictures, 95 % bootstrap; reached where the interval is above 0. Rows for two things alone and
for more, and for things and relations apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.subjects import JudgedModel
from benchmarks.knowledge.bacon_scenes import read_plain
from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.data.scenes import Scene, SceneOptions, caption_of, sample_scene
from photopic.generate.guidance.layout_guidance import LayoutGuidance
from photopic.knowledge.compact_reading import read_compact
from photopic.knowledge.graph_drawing import GraphDrawing, drawing_of, sentence
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.facts import Facts, ObjectFact
from photopic.metrics.intervals import paired_bootstrap
from photopic.models.captioner import Captioner

SEED = 2_300_000  # of scenes and samples
STYLES = ("noto", "twemoji")
BASELINE = Path(__file__).parents[2] / "recipes/emoji-captioner/baseline"
WAYS = ("caption", "graph", "shuffled", "written caption", "written graph")
KINDS = ("thing", "relation")
CLAIMS = (
    Claim(
        "bacon.redraw_facts_gain",
        "low > 0",
        "share of facts kept, drawn from the exact graph minus from the flat caption",
    ),
    Claim("bacon.redraw_facts_gain_two", "", "scenes of two things"),
    Claim("bacon.redraw_facts_gain_more", "", "scenes of three or four things"),
    Claim("bacon.redraw_things_gain", "", "facts that a thing is there"),
    Claim("bacon.redraw_relations_gain", "", "relations of things"),
    Claim("bacon.redraw_vs_shuffled", "low > 0", "the graph minus the same sentence with another scene's regions"),
    Claim("bacon.redraw_written_gain", "", "both from what is written of the picture: captioner minus plain captions"),
)


@dataclass(frozen=True)
class RedrawConfig(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(16)] = 160  # pictures drawn again
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """A run of scenes in one way."""

    way: str
    first: int
    count: int
    scenes: int


class Redrawing(JudgedModel):
    """The model that draws, the oracle, and what writes."""

    def __init__(self, config: RedrawConfig, cache: ResultCache):
        super().__init__(config.model, cache)
        self.digest += "".join(self.captioners[way].digest() for way in sorted(self.captioners))

    @cached_property
    def captioners(self) -> dict[str, Captioner]:
        """By the way that asks for it."""
        return {
            "written graph": Captioner.load("emoji-captioner", "cpu"),
            "written caption": Captioner.load(BASELINE, "cpu"),
        }


def scenes_to_draw(count: int) -> list[Scene]:
    """The scenes, the same for any count."""
    known = tuple(item.name for item in emoji_world.select(split="known"))
    options = SceneOptions(known, STYLES, objects=(0.0, 0.5, 0.25, 0.25), tinted=1 / 6)
    found: list[Scene] = []
    number = 0
    while len(found) < count:
        scene = sample_scene(options, (SEED, number))
        number += 1
        words = [word for name in scene.counts for word in name.split()]
        if len(set(words)) == len(words):
            found.append(scene)
    return found


def measure(bench: Bench[Any, Redrawing], case: Case) -> list[dict[str, list[bool]]]:
    """Which facts of each scene its picture keeps, by kind."""
    drawn = scenes_to_draw(case.scenes)
    return [_facts(bench.subject, drawn[number], _redrawn(bench.subject, drawn, number, case.way), number)
            for number in range(case.first, case.first + case.count)]  # fmt: skip


def _redrawn(judge: Redrawing, drawn: list[Scene], number: int, way: str) -> np.ndarray | None:
    """The picture of a scene in one way, (1, 64, 64, 3); None where nothing was written."""
    scene = drawn[number]
    flat = caption_of(scene.placements, scene.background, scene.relations, name_style=True)
    if way == "caption":
        return judge.drawn(flat, [SEED + number])
    if way == "written caption":
        text = judge.captioners[way].write(scene.image[None])[0]
        try:
            return judge.drawn(sentence(read_plain(text)), [SEED + number])
        except DataError:
            return None
    drawing = _drawing(judge, drawn, number, way)
    if drawing is None:
        return None
    return judge.drawn(drawing.prompt, [SEED + number], controls=[LayoutGuidance(drawing.layout)])


def _drawing(judge: Redrawing, drawn: list[Scene], number: int, way: str) -> GraphDrawing | None:
    """The sentence and the regions of a graph."""
    scene = drawn[number]
    if way == "written graph":
        try:
            return drawing_of(read_compact(judge.captioners[way].write(scene.image[None])[0]).bag, (64, 64))
        except DataError:
            return None
    own = drawing_of(bag_of_scene(scene), (64, 64))
    if way == "graph":
        return own
    later = (drawn[(number + step) % len(drawn)] for step in range(1, len(drawn)))
    other = drawing_of(bag_of_scene(next(each for each in later if len(each.boxes) == len(scene.boxes))), (64, 64))
    regions = (
        type(mine)(mine.words, theirs.box)
        for mine, theirs in zip(own.layout.regions, other.layout.regions, strict=True)
    )
    return GraphDrawing(own.prompt, type(own.layout)(tuple(regions), may_overlap=other.layout.may_overlap))


def _facts(judge: Redrawing, scene: Scene, image: np.ndarray | None, number: int) -> dict[str, list[bool]]:
    """Whether each fact of a scene holds of a picture."""
    items = [ObjectFact(item.concept, item.style, item.tint) for item in scene.placements]
    pairs = [(first, relation, second) for first, relation, second in scene.relations if first < second]
    if image is None:
        tints, ground = sum(item.colour is not None for item in items), scene.background
        others = len(items) + tints + 1 + (ground.kind != "flat") + (ground.second is not None)
        return {"thing": [False] * len(items), "other": [False] * others, "relation": [False] * len(pairs)}
    scores = judge.oracle.score(image)
    said = judge.oracle.caption_facts(scores, [Facts(tuple(items), background=scene.background)])[0]
    there = {item.concept: said.pop(item.concept) > 0.5 for item in items}
    related = [
        there[items[first].concept] and there[items[second].concept]
        and judge.oracle.relation(scores, items[first].concept, items[second].concept)[0] == relation
        for first, relation, second in pairs
    ]  # fmt: skip
    return {"thing": list(there.values()), "other": [each > 0.5 for each in said.values()], "relation": related}


def cases(config: RedrawConfig) -> list[Case]:
    """Runs of 16 scenes in each way."""
    firsts = range(0, config.scenes, 16)
    return [Case(way, first, min(16, config.scenes - first), config.scenes) for first in firsts for way in WAYS]


def rows(bench: Bench[RedrawConfig, Redrawing]) -> Iterator[Row]:
    """All claims."""
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    for case in cases(bench.config):
        found[case.way] += bench.found(case)
    numbers = np.array([len(each["thing"]) for each in found["caption"]])
    share = {
        way: np.array([np.mean([fact for facts in each.values() for fact in facts]) for each in kept])
        for way, kept in found.items()
    }

    def gain(name: str, way: str, other: str, chosen: np.ndarray, control: bool = False) -> Row:
        own, base = share[way][chosen], share[other][chosen]
        note = f"{own.mean():.3f} with it"
        beside = share["shuffled"][chosen].mean() if control else None
        return row(
            f"bacon.redraw_{name}",
            paired_bootstrap(own, base),
            n=len(own),
            baseline=base.mean(),
            control=beside,
            note=note,
        )

    everything = numbers > 0
    yield gain("facts_gain", "graph", "caption", everything, control=True)
    yield gain("facts_gain_two", "graph", "caption", numbers == 2, control=True)
    yield gain("facts_gain_more", "graph", "caption", numbers > 2, control=True)
    for kind, claim in zip(KINDS, ("things_gain", "relations_gain"), strict=True):
        told = [place for place, each in enumerate(found["caption"]) if each[kind]]
        own, base, control = (
            [np.mean(found[way][place][kind]) for place in told] for way in ("graph", "caption", "shuffled")
        )
        note = f"{np.mean(own):.3f} with it"
        yield row(
            f"bacon.redraw_{claim}",
            paired_bootstrap(own, base),
            n=len(told),
            baseline=np.mean(base),
            control=np.mean(control),
            note=note,
        )
    yield gain("vs_shuffled", "graph", "shuffled", everything)
    yield gain("written_gain", "written graph", "written caption", everything)


BENCHMARKS = (
    Benchmark(
        "bacon-redraw", __doc__, RedrawConfig(), RedrawConfig(scenes=16), CLAIMS, rows, cases, measure,
        open=Redrawing, seeds=(SEED,),
    ),
)  # fmt: skip
