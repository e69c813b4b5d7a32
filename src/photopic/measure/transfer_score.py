"""Which of several checkpoints to keep for pictures that nobody has labelled: a score of one classifier on such pictures.

Three parts, none of which looks at a label: how evenly the head's weight vectors point apart (a property of the weights alone), how
far the features of the pictures gather in groups (the Hopkins statistic), and how much a prediction says about its picture (mutual
information). Checkpoints are compared by the score on the same pictures.

Paper: *Can We Evaluate Domain Adaptation Models Without Target-Domain Labels? A Metric for Unsupervised Evaluation of Domain
Adaptation* (ICLR 2024, arXiv:2305.18712). Changed: the Hopkins statistic is the mean of ten draws with a fixed seed, because a
single one of a twentieth of a few hundred pictures is noise; angles are measured without the head's bias, as published. Claims
``transfer_score.*`` of benchmarks/measure/transfer_score.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.data.class_folder import ClassFolder
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

FEWEST = 20  # pictures below which a twentieth of them is no sample


@dataclass(frozen=True, kw_only=True)
class TransferScoreConfig(Config):
    """How the gathering of features is sampled."""

    share: Annotated[float, Gt(0), Le(0.5)] = 0.05  # of the pictures looked at in a draw
    draws: Annotated[int, Ge(1)] = 10  # draws that are averaged; one alone is noisy
    seed: Annotated[int, Ge(0)] = 0  # seed of the draws


@method(
    paper="arXiv:2305.18712",
    claims="transfer_score.",
    presets={"paper": TransferScoreConfig(draws=1)},
    command="measure transferability",
    examples=("Example: photopic measure transferability emoji-resnet-64-0 unlabelled/ --json",),
    allow_edits=True,
)
def transfer_score(
    model: Classifier, images: ClassFolder | Images, *, config: TransferScoreConfig = TransferScoreConfig()
) -> Steps[Report]:
    """How well a classifier may do on pictures without labels, to compare checkpoints by.

    A larger score is better. It says nothing alone: compare checkpoints of the same classes on the same pictures.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory.
        images: At least 20 pictures of where the classifier is to work, a folder or what ``Classifier.logits`` takes; labels are
            not looked at.
        config: How the gathering of features is sampled.

    Returns:
        ``values``: ``transfer_score``, and its parts ``hopkins`` (0.5: evenly spread, 1: in groups), ``information`` (0 to 1) and
        ``nonuniformity`` (0 or more, taken off).

    Raises:
        DataError: If there are too few pictures, or features that are all the same.

    Example:
        >>> transfer_score(model, images).values["transfer_score"]  # doctest: +SKIP
        1.12
    """
    if len(images) < FEWEST:
        raise DataError(f"images: expected at least {FEWEST}, found {len(images)}; the gathering of fewer says nothing")
    yield Event("looking", 0, len(images))
    features = model.features(images)  # (n, width)
    weight = model.head.weight.detach().float().cpu()  # (classes, width)
    bias = model.head.bias
    logits = features @ weight.T + (0 if bias is None else bias.detach().float().cpu())  # (n, classes)
    parts = {
        "hopkins": hopkins(features, share=config.share, draws=config.draws, seed=config.seed),
        "information": information(logits),
        "nonuniformity": nonuniformity(weight),
    }
    score = parts["hopkins"] + parts["information"] - parts["nonuniformity"]
    facts = {"digest": model.digest(), "images": len(images), "classes": len(model.labels)}
    return Report("transfer score", {"transfer_score": score} | parts, (), facts)


def nonuniformity(weight: Float[Tensor, "classes width"]) -> float:
    """Mean squared deviation, in radians, of the angles between weight vectors from those of a regular simplex.

    Example:
        >>> round(nonuniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 6)
        0.0
    """
    count = len(weight)
    directions = torch.nn.functional.normalize(weight.double(), dim=1)
    cosines = (directions @ directions.T)[tuple(torch.triu_indices(count, count, 1))]  # each pair once
    even = math.acos(-1 / (count - 1))  # K unit vectors as far apart as can be
    return float(((cosines.clamp(-1, 1).arccos() - even) ** 2).mean())


def information(logits: Float[Tensor, "n classes"]) -> float:
    """Mutual information of pictures and predictions: entropy of the mean minus mean entropy, over log K, so 0 to 1.

    Example:
        >>> round(information(torch.eye(4) * 100), 6)
        1.0
    """
    chances = logits.double().softmax(1)
    entropies = [-torch.special.xlogy(each, each).sum(-1) for each in (chances.mean(0), chances)]
    return float((entropies[0] - entropies[1].mean()) / math.log(logits.shape[1]))


def hopkins(features: Float[Tensor, "n width"], *, share: float, draws: int, seed: int) -> float:
    """The Hopkins statistic: distances from points spread evenly over the features' box, over those and the features' own.

    Args:
        features: Of all pictures.
        share: Of the pictures looked at in a draw, at least two.
        draws: Averaged.
        seed: Of the draws.

    Raises:
        DataError: If all features are the same.
    """
    points = features.double().numpy()
    low, high = points.min(0), points.max(0)
    if (low == high).all():
        raise DataError("images: expected pictures that the model tells apart, found the same features for all of them")
    rng, tree = np.random.default_rng(seed), NearestNeighbors(n_neighbors=2).fit(points)
    count, found = max(2, round(share * len(points))), []
    for _ in range(draws):
        spread = rng.uniform(low, high, (count, points.shape[1]))
        away = tree.kneighbors(spread, 1)[0].sum()  # from anywhere in the box to the nearest picture
        chosen = points[rng.choice(len(points), count, replace=False)]
        own = tree.kneighbors(chosen, 2)[0][:, 1].sum()  # from a picture to its nearest other one
        found.append(away / (away + own))
    return float(np.mean(found))
