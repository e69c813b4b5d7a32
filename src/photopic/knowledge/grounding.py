"""Grounding: which part of a picture is which object of its bag of concepts, by a dual encoder over candidate regions.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314), its grounding. Changed: the detector is
whatever the user has; without one the connected parts of |picture - background| are the candidates, as scenes of the emoji
world have them. The threshold is the 95 % quantile of false pairs of the encoder at hand in place of CLIP ViT-B/32's .2; of
three weights those of absent texts fall away; the questions to a second model are left to ``accepts``. Claims
``bacon.grounding_*`` of benchmarks/knowledge/bacon_grounding.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import UInt8

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Map
from photopic.data.picture_file import read_picture
from photopic.knowledge._calibration import threshold_of
from photopic.knowledge._candidates import Candidate, Detector, components, finder_of
from photopic.knowledge._matching import GroundingConfig, crop, match, scores_of
from photopic.knowledge._region_views import grounding_view
from photopic.knowledge.bag_file import read_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts
from photopic.models.dual_encoder import DualEncoder

MANY = 200  # objects from which on the cost is told


@method(
    paper="arXiv:2407.03314",
    claims="bacon.grounding",
    presets={"paper": GroundingConfig(threshold=0.2, template="This is a {}.")},
    command="knowledge ground",
    examples=(
        "Example: photopic knowledge ground scene.png scene.jsonl -o boxes/",
        "Your pictures: photopic knowledge ground photo.png photo.jsonl --detector owlvit/ --model clip-vit-b-32/ -o boxes/",
    ),
    view=grounding_view,
)
def ground(
    model: DualEncoder,
    picture: Annotated[str, Flags("PICTURE"), Existing()],
    graph: Annotated[str, Flags("GRAPH"), Existing()],
    *,
    detector: str = "components",
    config: GroundingConfig = GroundingConfig(),  # noqa: B008 (frozen)
) -> Steps[Map]:
    """Find where in a picture each object of its graph is: a box, a mask and a score for each that is found.

    Writes the picture with the boxes over it as a page, one picture an object, and the numbers as one safetensors file.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        picture: The picture to look at, a file.
        graph: Its bag of concepts, as JSON Lines; of several the one that names the picture.
        detector: What finds regions: components for scenes on a plain background, or a folder with a zero-shot detector of
            transformers, which is asked for one class after the other.
        config: How to match.

    Returns:
        For each object its mask times its score, 0 everywhere for one that was not found; ``provenance["boxes"]`` has the boxes.

    Raises:
        DataError: If a file cannot be read, no record is of the picture, or it has no plain background.
        ModelError: If the folder holds no zero-shot detector.

    Example:
        >>> found = ground(DualEncoder.load("emoji-clip-vit"), "scene.png", "scene.jsonl")  # doctest: +SKIP
    """
    bag = bag_of_picture(graph, picture)
    image = np.asarray(read_picture(picture))  # (h, w, 3)
    many = len(bag.objects) > MANY
    yield Event("finding regions", warning=f"{len(bag.objects)} objects: this takes a while" if many else "")
    return ground_objects(model, image, bag, finder=finder_of(detector, model.device), config=config)


def ground_objects(
    model: DualEncoder,
    image: UInt8[np.ndarray, "height width 3"],
    bag: BagOfConcepts,
    *,
    finder: Detector = components,
    accepts: Callable[[UInt8[np.ndarray, "h w 3"], str], bool] | None = None,
    config: GroundingConfig = GroundingConfig(),  # noqa: B008 (frozen)
) -> Map:
    """The same of a picture and a bag at hand.

    Args:
        model: The encoder.
        image: RGB.
        bag: What is looked for; the boxes it has are not read.
        finder: Finds candidates of all classes of the bag.
        accepts: Whether a crop shows a class, asked of each candidate of a detector before matching; None: all are kept.
        config: How to match.

    Raises:
        DataError: If the bag lists no object, or the finder finds nothing it can look at.

    Example:
        >>> ground_objects(model, scene.image, bag_of_scene(scene)).provenance["boxes"]  # doctest: +SKIP
        {'owl 1': [7, 20, 25, 44]}
    """
    if not bag.objects:
        raise DataError("graph: expected objects to look for, found none listed; describe the picture first")
    concepts = list(dict.fromkeys(item.concept for item in bag.objects))
    candidates = [
        each for each in finder(image, concepts) if accepts is None or _accepted(accepts, image, each, concepts)
    ]
    threshold = threshold_of(model, config)
    values = np.zeros((1, len(bag.objects), *image.shape[:2]), np.float32)
    boxes: dict[str, list[int] | None] = {item.name: None for item in bag.objects}
    told: dict[str, float] = {}
    if candidates:
        scores = scores_of(model, image, candidates, bag.objects, config)
        for row, item in enumerate(bag.objects):  # a detector says which class a candidate is of
            scores[row, [each.name not in (None, item.concept) for each in candidates]] = -np.inf
        for row, column in match(scores, threshold, config.matching).items():
            chosen, name = candidates[column], bag.objects[row].name
            values[0, row] = chosen.pixels(*image.shape[:2]) * scores[row, column]
            boxes[name], told[name] = list(chosen.box), round(float(scores[row, column]), 4)
    facts = {"boxes": boxes, "scores": told, "threshold": round(threshold, 4), "candidates": len(candidates)}
    return Map(values, tuple(boxes), facts, image[None])


def with_boxes(bag: BagOfConcepts, found: Map) -> BagOfConcepts:
    """A bag with the boxes that grounding found, none where it found none.

    Example:
        >>> from photopic.knowledge.bag_of_concepts import ConceptObject
        >>> found = Map(np.zeros((1, 1, 2, 2)), ("owl 1",), {"boxes": {"owl 1": [0, 0, 1, 2]}})
        >>> with_boxes(BagOfConcepts(objects=(ConceptObject("owl 1"),)), found).objects[0].box
        (0, 0, 1, 2)
    """
    boxes = found.provenance["boxes"]
    objects = (replace(item, box=boxes[item.name] and tuple(boxes[item.name])) for item in bag.objects)
    return replace(bag, objects=tuple(objects))


def bag_of_picture(graph: str, picture: str) -> BagOfConcepts:
    """The bag of a file that is of a picture: the only one, or the one that names it.

    Raises:
        DataError: If there is none, or several and none names the picture.
    """
    records = list(read_bags(graph))
    named = [each for each in records if each.image is not None and each.image.name == Path(picture).name]
    if len(chosen := named or records) != 1:
        raise DataError(
            f"{graph}: expected one graph of {Path(picture).name}, found {len(chosen)} of {len(records)}; name the picture in "
            'its "image"'
        )
    return chosen[0].bag


def _accepted(
    accepts: Callable[[np.ndarray, str], bool], image: np.ndarray, each: Candidate, concepts: Sequence[str]
) -> bool:
    return any(accepts(crop(image, each), concept) for concept in ([each.name] if each.name else concepts))
