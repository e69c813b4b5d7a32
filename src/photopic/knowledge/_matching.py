"""Which candidate of a picture is which object of a list: cosines of a dual encoder over names, colours and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from photopic.core.config import Config, Sentence
from photopic.core.errors import DataError
from photopic.knowledge._candidates import Candidate
from photopic.knowledge.bag_of_concepts import ConceptObject
from photopic.models.dual_encoder import DualEncoder

Matching = Literal["greedy", "hungarian"]
Views = Literal["both", "crop", "white"]
MARGIN = 0.05  # of a box, kept around it in its crop
LONGEST = 290  # characters of a text, as a guard of CLIP's 77 tokens


@dataclass(frozen=True, kw_only=True)
class GroundingConfig(Config):
    """How objects are matched with regions."""

    # score that a pair of object and region must exceed; as the encoder's own false pairs are, measured once and kept
    threshold: Annotated[float | None, Ge(-1), Le(1)] = None
    quantile: Annotated[float, Ge(0), Le(1)] = 0.95  # share of false pairs below that measured threshold
    matching: Matching = "greedy"  # the best pair first, as published, or the largest sum of all
    views: Views = "both"  # of a region: its crop, it alone on white, or the mean of both scores
    name_weight: Annotated[float, Ge(0)] = 0.4  # of the score with the object's name
    colour_weight: Annotated[float, Ge(0)] = 0.4  # of the score with its colour, where that is told
    description_weight: Annotated[float, Ge(0)] = 0.2  # of the score with its description, where there is one
    template: Annotated[str, Sentence()] = "a photo of a {}."  # sentence with {} where a name goes

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name_weight:
            raise DataError("name_weight: expected above 0, since an object may have nothing but its name, found 0")

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of name, colour and description."""
        return self.name_weight, self.colour_weight, self.description_weight


def scores_of(
    model: DualEncoder,
    image: UInt8[np.ndarray, "height width 3"],
    candidates: Sequence[Candidate],
    objects: Sequence[ConceptObject],
    config: GroundingConfig = GroundingConfig(),
) -> Float[np.ndarray, "objects candidates"]:
    """How well each candidate fits each object: the weighted mean cosine of its views with the object's texts.

    Args:
        model: The encoder.
        image: RGB.
        candidates: At least one.
        objects: At least one.
        config: The weights of name, colour and description (an object that lacks one is scored by the others), the sentence
            around a name, and the views.
    """
    seen = _view_features(model, image, candidates, config.views)  # (candidates, dim)
    texts: list[str] = []
    parts = np.zeros((len(objects), 3 * len(objects)))  # of each object, the weight of each text
    for row, item in enumerate(objects):
        said = (config.template.format(item.concept), _colours(item.colour), ". ".join(item.description))
        for weight, text in zip(config.weights, said, strict=True):
            if text and weight:
                parts[row, len(texts)] = weight
                texts.append(text[:LONGEST])
    parts = parts[:, : len(texts)] / parts.sum(1, keepdims=True)
    read = model.text_features(texts)  # (texts, dim)
    return np.asarray(parts @ (read @ seen.mT).double().numpy())  # (objects, texts) (texts, candidates)


def match(
    scores: Float[np.ndarray, "objects candidates"], threshold: float, matching: Matching = "greedy"
) -> dict[int, int]:
    """One candidate for an object, one object for a candidate, where the score is above the threshold.

    Args:
        scores: -inf where two cannot belong together.
        threshold: The score that a pair must exceed.
        matching: ``greedy`` takes the best pair first, as published; ``hungarian`` the largest sum.

    Example:
        >>> match(np.array([[0.9, 0.8], [0.85, 0.1]]), 0.2), match(np.array([[0.9, 0.8], [0.85, 0.1]]), 0.2, "hungarian")
        ({0: 0}, {0: 1, 1: 0})
    """
    if matching == "hungarian":
        gain = np.where(scores > threshold, scores - threshold, 0.0)  # a pair below it is worth as much as none
        rows, columns = linear_sum_assignment(gain, maximize=True)
        return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if gain[row, column] > 0}
    found: dict[int, int] = {}
    for flat in np.argsort(-scores, axis=None, kind="stable"):
        row, column = divmod(int(flat), scores.shape[1])
        if not scores[row, column] > threshold:
            break
        if row not in found and column not in found.values():
            found[row] = column
    return dict(sorted(found.items()))


def _view_features(
    model: DualEncoder, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[Candidate], views: Views
) -> Float[Tensor, "candidates dim"]:
    """Of each candidate the mean feature over its views; the mean of cosines is the cosine with the mean of unit features."""
    shown: list[np.ndarray] = []
    if views != "white":
        shown += [crop(image, each) for each in candidates]
    if views != "crop":
        shown += [crop_on_white(image, each) for each in candidates]
    features = model.image_features(shown)  # (views * candidates, dim), of length 1
    return torch.stack(features.split(len(candidates))).mean(0)


def crop(image: UInt8[np.ndarray, "height width 3"], candidate: Candidate) -> UInt8[np.ndarray, "h w 3"]:
    """The box with a margin, as far as the picture goes."""
    height, width = image.shape[:2]
    left, top, right, bottom = candidate.box
    across, down = round(MARGIN * (right - left)), round(MARGIN * (bottom - top))
    return image[max(0, top - down) : min(height, bottom + down), max(0, left - across) : min(width, right + across)]


def crop_on_white(image: UInt8[np.ndarray, "height width 3"], candidate: Candidate) -> UInt8[np.ndarray, "side side 3"]:
    """The object alone on a white square."""
    left, top, right, bottom = candidate.box
    inside = candidate.pixels(*image.shape[:2])[top:bottom, left:right]
    height, width = inside.shape
    side = max(height, width)
    square = np.full((side, side, 3), 255, np.uint8)
    down, across = (side - height) // 2, (side - width) // 2
    square[down : down + height, across : across + width][inside] = image[top:bottom, left:right][inside]
    return square


def _colours(said: Sequence[str]) -> str:
    """The colours of an object as one text."""
    return f"the color of this image is {' and '.join(said)}" if said else ""
