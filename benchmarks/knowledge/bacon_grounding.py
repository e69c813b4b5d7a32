"""Are the objects of a graph found in the picture? Boxes by the dual encoder against the whole picture, random boxes and regions.

    python -m benchmarks bacon-grounding     # writes benchmarks/results/bacon-grounding.json

**Protocol, written before the first run.** 300 new scenes of two to four things in held-out renderings, a fifth of the things
tinted. Given is the exact graph without its boxes. The score of an object is the overlap (intersection over union) of its box
with the true one, 0 where it was not found; a scene's is the mean over its objects. The method has its recommended settings and
the bundled emoji-clip-vit, its threshold measured on scenes of another seed. The baseline of ``bacon.grounding_iou_gain`` is
the whole picture as the box of every object, its control a random box: those of another scene with as many objects. The harder
comparison, ``bacon.grounding_vs_random_regions``, gives the same candidate regions to the objects at random. Further rows: the
Hungarian method, either view alone, the published .2 as threshold, and the flat caption's names (each concept once, as a phrase
has one box) in place of the numbered list, compared by the share of objects with a box that overlaps by half.


"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.knowledge.bacon_scenes import SEED, scenes_of
from photopic.core.config import Config
from photopic.data.scenes import Scene
from photopic.knowledge._candidates import components
from photopic.knowledge._matching import GroundingConfig
from photopic.knowledge.bag_of_concepts import BagOfConcepts
from photopic.knowledge.grounding import ground_objects
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.intervals import paired_bootstrap
from photopic.metrics.layout import box_iou
from photopic.models.dual_encoder import DualEncoder

WAYS = {
    "recommended": GroundingConfig(),
    "hungarian": GroundingConfig(matching="hungarian"),
    "crop": GroundingConfig(views="crop"),
    "white": GroundingConfig(views="white"),
    "published threshold": GroundingConfig(threshold=0.2),
}
CLAIMS = (
    Claim("bacon.grounding_iou_gain", "low > 0", "mean box IoU of listed objects minus that of the whole picture"),
    Claim("bacon.grounding_vs_random_boxes", "low > 0", "minus boxes of another scene"),
    Claim("bacon.grounding_vs_random_regions", "low > 0", "minus the same regions given out at random"),
    Claim("bacon.grounding_hungarian", "", "the Hungarian method minus greedy"),
    Claim("bacon.grounding_crop", "", "the crop alone minus both views"),
    Claim("bacon.grounding_white", "", "the object on white alone minus both views"),
    Claim("bacon.grounding_published_threshold", "", "the published .2 minus the measured threshold"),
    Claim(
        "bacon.grounding_list_recall_gain",
        "low > 0",
        "objects found by the numbered list minus by each name once",
    ),
)


@dataclass(frozen=True)
class GroundingBenchConfig(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(16)] = 300  # of two to four things
    model: str = "emoji-clip-vit"  # a bundled dual encoder or a folder


@dataclass(frozen=True)
class Case:
    """A run of scenes."""

    first: int
    count: int
    scenes: int


def measure(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, list[Any]]:
    """Of each scene the overlap of every object's box with the true one, in each way."""
    drawn = scenes_of("renderings", case.scenes, objects=(0.0, 1 / 3, 1 / 3, 1 / 3))
    found: dict[str, list[Any]] = {way: [] for way in (*WAYS, "whole", "random boxes", "random regions", "flat")}
    for number in range(case.first, case.first + case.count):
        scene, bag = drawn[number], bag_of_scene(drawn[number])
        blind = replace(bag, objects=tuple(replace(item, box=None) for item in bag.objects))
        for way, config in WAYS.items():
            boxes = ground_objects(bench.subject, scene.image, blind, config=config).provenance["boxes"]
            found[way].append(_overlaps([boxes[item.name] for item in bag.objects], scene))
        found["whole"].append(_overlaps([(0, 0, 64, 64)] * len(bag.objects), scene))
        found["random boxes"].append(_overlaps(_another(drawn, number), scene))
        regions: list[Any] = [each.box for each in components(scene.image)] + [None] * len(bag.objects)
        order = np.random.default_rng((SEED, number)).permutation(
            max(len(regions) - len(bag.objects), len(bag.objects))
        )
        found["random regions"].append(_overlaps([regions[place] for place in order[: len(bag.objects)]], scene))
        found["flat"].append(_flat(bench.subject, scene, blind))
    return found


def _overlaps(boxes: list[Any], scene: Scene) -> list[float]:
    """IoU of one box an object with the true ones; 0 for none."""
    given = np.array([box or (0, 0, 0, 0) for box in boxes], float)
    return [float(each) for each in box_iou(given, scene.boxes)]


def _another(drawn: list[Scene], number: int) -> list[Any]:
    """The boxes of the next scene with as many objects, in an order of chance."""
    count = len(drawn[number].boxes)
    later = (drawn[(number + step) % len(drawn)] for step in range(1, len(drawn)))
    boxes = next(scene.boxes for scene in later if len(scene.boxes) == count)
    return [tuple(boxes[place]) for place in np.random.default_rng((SEED, number)).permutation(count)]


def _flat(model: DualEncoder, scene: Scene, bag: BagOfConcepts) -> list[float]:
    """Each concept asked for once, without a number: a second object of it gets no box."""
    once = {item.concept: replace(item, name=item.concept) for item in reversed(bag.objects)}
    boxes = ground_objects(model, scene.image, BagOfConcepts(objects=tuple(once.values()))).provenance["boxes"]
    taken: set[str] = set()
    given = []
    for item in bag.objects:
        given.append(None if item.concept in taken else boxes[item.concept])
        taken.add(item.concept)
    return _overlaps(given, scene)


def cases(config: GroundingBenchConfig) -> list[Case]:
    """Runs of 25 scenes."""
    return [Case(first, min(25, config.scenes - first), config.scenes) for first in range(0, config.scenes, 25)]


def rows(bench: Bench[GroundingBenchConfig, DualEncoder]) -> Iterator[Row]:
    """All claims."""
    parts = [bench.found(case) for case in cases(bench.config)]
    overlaps = {way: [scene for part in parts for scene in part[way]] for way in parts[0]}
    means = {way: np.array([np.mean(scene) for scene in found]) for way, found in overlaps.items()}
    own, n = means["recommended"], bench.config.scenes
    note = f"{own.mean():.3f} with it"
    for claim, way in (
        ("iou_gain", "whole"),
        ("vs_random_boxes", "random boxes"),
        ("vs_random_regions", "random regions"),
    ):
        control = means["random boxes"].mean() if way == "whole" else None
        gain = paired_bootstrap(own, means[way])
        yield row(f"bacon.grounding_{claim}", gain, n=n, baseline=means[way].mean(), control=control, note=note)
    for way in list(WAYS)[1:]:
        gain = paired_bootstrap(means[way], own)
        yield row(f"bacon.grounding_{way.replace(' ', '_')}", gain, n=n, baseline=own.mean())
    recall = {
        way: np.array([np.mean(np.array(scene) > 0.5) for scene in overlaps[way]]) for way in ("recommended", "flat")
    }
    gain = paired_bootstrap(recall["recommended"], recall["flat"])
    note = f"{recall['recommended'].mean():.3f} with the list"
    yield row("bacon.grounding_list_recall_gain", gain, n=n, baseline=recall["flat"].mean(), note=note)


BENCHMARKS = (
    Benchmark(
        "bacon-grounding", __doc__, GroundingBenchConfig(), GroundingBenchConfig(scenes=24), CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model, "cpu"), seeds=(SEED, 31),
    ),
)  # fmt: skip
