"""Open-vocabulary detection: which parts of a picture show which of the names in a list, by a dual encoder.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314), where a list of objects is the
vocabulary of a detector. Changed: a name may have several boxes, each region has the name that fits it best, and what fits none
well enough has none; the threshold is measured as for ``knowledge ground``. No claim of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Map
from photopic.data.picture_file import read_picture
from photopic.knowledge._calibration import threshold_of
from photopic.knowledge._candidates import finder_of
from photopic.knowledge._matching import GroundingConfig, scores_of
from photopic.knowledge._region_views import detection_view
from photopic.knowledge.bag_of_concepts import ConceptObject
from photopic.models.dual_encoder import DualEncoder


@method(
    paper="arXiv:2407.03314",
    command="knowledge detect",
    examples=("Example: photopic knowledge detect scene.png --name owl --name guitar -o boxes/",),
    view=detection_view,
)
def detect(
    model: DualEncoder,
    picture: Annotated[str, Flags("PICTURE"), Existing()],
    names: Annotated[Sequence[str], Flags("--name")],
    *,
    detector: str = "components",
    config: GroundingConfig = GroundingConfig(),  # noqa: B008 (frozen)
) -> Steps[Map]:
    """Find everything in a picture that is called one of the names in a list, each as a box with a score.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        picture: The picture to look at, a file.
        names: A name to look for; several times for several.
        detector: What finds regions, as for photopic knowledge ground.
        config: How regions are named; weights of colour and description count for nothing here.

    Returns:
        For each name the regions that show it, with their scores; ``provenance["found"]`` lists name, box and score.

    Raises:
        DataError: If there is no name, one occurs twice, or the picture has no plain background.
        ModelError: If the folder holds no zero-shot detector.

    Example:
        >>> found = detect(DualEncoder.load("emoji-clip-vit"), "scene.png", ["owl", "guitar"])  # doctest: +SKIP
    """
    if not names or len(set(names)) < len(names):
        raise DataError(f"names: expected one or more, each once, found {', '.join(names) or 'none'}")
    image = np.asarray(read_picture(picture))  # (h, w, 3)
    yield Event("finding regions")
    candidates = finder_of(detector, model.device)(image, names)
    threshold = threshold_of(model, config)
    values, found = np.zeros((1, len(names), *image.shape[:2]), np.float32), []
    if candidates:
        scores = scores_of(model, image, candidates, [ConceptObject(name) for name in names], config)
        for column, candidate in enumerate(candidates):
            if candidate.name is not None:  # a detector was asked for this name alone
                scores[[name != candidate.name for name in names], column] = -np.inf
            row = int(scores[:, column].argmax())
            if scores[row, column] > threshold:
                values[0, row] = np.maximum(values[0, row], candidate.pixels(*image.shape[:2]) * scores[row, column])
                found.append(
                    {"name": names[row], "box": list(candidate.box), "score": round(float(scores[row, column]), 4)}
                )
    facts: dict[str, Any] = {"found": found, "threshold": round(threshold, 4), "candidates": len(candidates)}
    return Map(values, tuple(names), facts, image[None])
