"""What the bundled captioner says of a picture, against one that writes plain captions, and against what it says of other
pictures.

    python -m benchmarks bacon-captions     # writes benchmarks/results/bacon-captions.json

**Protocol, written before the first run.** Four sets of 500 new scenes of one to four things (each number as often), a fifth of
the things tinted, a tenth of the scenes of several repeats one: ``renderings``, pairs of concept and style that no bundled
model was shown; ``style``, the held-out style; ``concepts``, held-out concepts in training styles; ``seen``, new scenes of
pairs that were trained on. The captioner writes the short form, which is read with repairs. The baseline has the same network,
start, scenes, steps and batches and was trained on plain captions (the sentence of a scene with every style named, things in
reading order); its text is read by rules (``bacon_scenes.read_plain``). A text that names nothing is a bag of nothing. The
control is the captioner's bag of the next picture of the set. Scores are those of ``metrics.scene_graph``: Hungarian matching,
the mean F1 over all pictures, concepts by name, relations up to inversion, attributes (style and tint) of matched objects.
Headline gains are on ``renderings``: captioner minus baseline, paired over scenes, 95 % bootstrap; reached where the interval
is above 0. A plain caption tells a relation only of two things, which is part of what is compared. The captioner cannot name a
held-out concept; of those the rows say how often what it names instead is of the same subgroup, against the same for the
control.


"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.knowledge.bacon_scenes import SEED, SETS, read_plain, scenes_of
from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.knowledge.bag_of_concepts import BagOfConcepts
from photopic.knowledge.compact_reading import read_compact
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.scene_graph import compare
from photopic.models.captioner import Captioner

BASELINE = Path(__file__).parents[2] / "recipes/emoji-captioner/baseline"
FIELDS = ("objects", "relations", "attributes")
SCORES = ("precision", "recall", "f1")
CLAIMS = (
    Claim(
        "bacon.object_f1_gain",
        "low > 0",
        "objects, held-out renderings: captioner minus the same network on plain captions",
    ),
    Claim(
        "bacon.relation_f1_gain",
        "low > 0",
        "relations, likewise",
    ),
    Claim("bacon.attribute_f1_gain", "low > 0", "style and tint of matched objects, held-out renderings"),
    *(
        Claim(f"bacon.{field}_f1_gain_{title}", "", f"{field}s, {title}")
        for field in ("object", "relation", "attribute")
        for title in SETS[1:]
    ),
    *(
        Claim(f"bacon.captioner_{field}_{score}_{title}", "", f"{field}: {score}, {title}")
        for title in SETS
        for field in FIELDS
        for score in SCORES
    ),
    *(
        Claim(f"bacon.captioner_located_f1_{title}", "", f"objects with a box that overlaps by half, {title}")
        for title in SETS
    ),
    *(
        Claim(f"bacon.captioner_parse_rate_{title}", "", f"texts that are read without a repair, {title}")
        for title in SETS
    ),
    Claim(
        "bacon.held_out_concepts_subgroup", "low > 0", "share of named concepts of a true subgroup, minus the control's"
    ),
)


@dataclass(frozen=True)
class CaptionsConfig(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(16)] = 500  # of each set


@dataclass(frozen=True)
class Case:
    """One set."""

    title: str
    scenes: int


class Writers:
    """The captioner and its baseline."""

    def __init__(self, config: CaptionsConfig, cache: ResultCache):
        self.captioner, self.baseline = Captioner.load("emoji-captioner", "cpu"), Captioner.load(BASELINE, "cpu")

    @cached_property
    def digest(self) -> str:
        """Of the weights of both."""
        return self.captioner.digest() + self.baseline.digest()


def measure(bench: Bench[Any, Writers], case: Case) -> dict[str, Any]:
    """Scores of each scene of a set: of the captioner, the baseline and the control, by field and score."""
    drawn = scenes_of(case.title, case.scenes)
    truth = [bag_of_scene(scene) for scene in drawn]
    images = np.stack([scene.image for scene in drawn])
    texts = bench.subject.captioner.write(images, batch=100)
    bags = [_read(text, lambda text: read_compact(text).bag) for text in texts]
    plain = [_read(text, read_plain) for text in bench.subject.baseline.write(images, batch=100)]
    ways = {"captioner": bags, "baseline": plain, "control": [*bags[1:], bags[0]]}
    found: dict[str, Any] = {way: _scores(said, truth) for way, said in ways.items()}
    found["clean"] = [_is_clean(text) for text in texts]
    found["subgroup"] = {
        way: [_subgroup(*pair) for pair in zip(ways[way], truth, strict=True)] for way in ("captioner", "control")
    }
    return found


def _scores(said: Sequence[BagOfConcepts], truth: Sequence[BagOfConcepts]) -> dict[str, list[float]]:
    """Each score of each scene."""
    compared = [compare(*pair) for pair in zip(said, truth, strict=True)]
    found = {
        f"{field} {score}": [getattr(getattr(each, field), score) for each in compared]
        for field in (*FIELDS, "located")
        for score in SCORES
    }
    return found


def _read(text: str, reader: Any) -> BagOfConcepts:
    try:
        return reader(text)
    except DataError:
        return BagOfConcepts()  # a text that names nothing counts as a bag of nothing


def _is_clean(text: str) -> bool:
    try:
        return not read_compact(text).repairs
    except DataError:
        return False


def _subgroup(said: BagOfConcepts, truth: BagOfConcepts) -> float:
    """The share of what is named that is of the subgroup of a true concept."""
    groups = {emoji_world.concept(item.concept).subgroup for item in truth.objects}
    named = [emoji_world.concept(item.concept).subgroup in groups for item in said.objects]
    return float(np.mean(named)) if named else 0.0


def cases(config: CaptionsConfig) -> list[Case]:
    """The sets."""
    return [Case(title, config.scenes) for title in SETS]


def rows(bench: Bench[CaptionsConfig, Writers]) -> Iterator[Row]:
    """All claims."""
    found = {case.title: bench.found(case) for case in cases(bench.config)}
    n = bench.config.scenes
    for field in ("object", "relation", "attribute"):
        for title in SETS:
            own, plain, control = (found[title][way][f"{field}s f1"] for way in ("captioner", "baseline", "control"))
            name = f"bacon.{field}_f1_gain" + (f"_{title}" if title != SETS[0] else "")
            note = f"{np.mean(own):.3f} with it"
            yield row(
                name, paired_bootstrap(own, plain), n=n, baseline=np.mean(plain), control=np.mean(control), note=note
            )
    for title in SETS:
        for field in FIELDS:
            for score in SCORES:
                own, plain, control = (
                    found[title][way][f"{field} {score}"] for way in ("captioner", "baseline", "control")
                )
                name = f"bacon.captioner_{field}_{score}_{title}"
                yield row(name, bootstrap(own), n=n, baseline=np.mean(plain), control=np.mean(control))
        located = found[title]["captioner"]["located f1"]
        control = np.mean(found[title]["control"]["located f1"])
        yield row(f"bacon.captioner_located_f1_{title}", bootstrap(located), n=n, control=control)
        yield row(f"bacon.captioner_parse_rate_{title}", float(np.mean(found[title]["clean"])), n=n)
    own, control = (found["concepts"]["subgroup"][way] for way in ("captioner", "control"))
    yield row("bacon.held_out_concepts_subgroup", paired_bootstrap(own, control), n=n, control=np.mean(control),
              note=f"{np.mean(own):.3f} with it")  # fmt: skip


BENCHMARKS = (
    Benchmark(
        "bacon-captions", __doc__, CaptionsConfig(), CaptionsConfig(scenes=24), CLAIMS, rows, cases, measure,
        open=Writers, seeds=(SEED,),
    ),
)  # fmt: skip
