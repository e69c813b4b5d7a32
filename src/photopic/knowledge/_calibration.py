"""The score above which a pair of object and candidate counts, measured for each encoder on scenes whose truth is known.

The published .2 is a number of CLIP ViT-B/32; of another encoder a third of all false pairs may be above it. Here it is the
quantile of false pairs that the caller names, over scenes of the emoji world, kept for each model by its digest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from photopic.core.files import write_atomically
from photopic.core.fingerprint_cache import cache_folder
from photopic.data import renderings
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.knowledge._candidates import Candidate
from photopic.knowledge._matching import GroundingConfig, scores_of
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.models.dual_encoder import DualEncoder

SCENES = 200  # with two to four objects
SEED = 31  # of the scenes; no benchmark uses it


def threshold_of(model: DualEncoder, config: GroundingConfig) -> float:
    """The threshold that a config states, else the stated quantile of the scores of false pairs, measured once for a model.

    Args:
        model: Whose digest the number is kept under.
        config: With everything else that decides the scores.
    """
    if config.threshold is not None:
        return config.threshold
    quantile = config.quantile
    place = _place(model, repr((config.template, config.weights, config.views, quantile, SCENES, SEED)))
    if place is not None and place.is_file():
        return float(json.loads(place.read_text())["threshold"])
    found = float(np.quantile(false_pairs(model, config), quantile))
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps({"threshold": found, "model": model.name}).encode())
    return found


def false_pairs(model: DualEncoder, config: GroundingConfig, count: int = SCENES) -> Float[np.ndarray, " pairs"]:
    """The scores of all pairs of an object and the place of another concept in the same scene."""
    options = SceneOptions(renderings.classes(), objects=(0.0, 0.4, 0.3, 0.3), tinted=0.25)
    found: list[float] = []
    for index in range(count):
        scene = sample_scene(options, (SEED, index))
        objects = bag_of_scene(scene).objects
        places = [Candidate(item.box, mask) for item, mask in zip(objects, scene.masks, strict=True) if item.box]
        scores = scores_of(model, scene.image, places, objects, config)  # (objects, candidates)
        concepts = np.array([item.concept for item in objects])
        found += scores[concepts[:, None] != concepts[None]].tolist()
    return np.array(found)


def _place(model: DualEncoder, asked: str) -> Path | None:
    """The file that keeps the number; None for a user without a home."""
    folder = cache_folder()
    name = hashlib.sha256(f"{model.digest()} {asked}".encode()).hexdigest()[:32]
    return folder and folder.parent / "thresholds" / f"{name}.json"
