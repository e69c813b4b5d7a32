"""The scores of scene graphs as they were published for BACON (arXiv:2407.03314), slips included, to stand beside the honest ones.

Names are compared by a similarity from -1 to 1, there the cosine of CLIP ViT-B/32's texts; .85 and .95 are numbers of that encoder.
What is called AP50 there has no ranking, so it is called object precision here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from photopic.metrics.scene_graph import Graph, overlaps

Similar = Callable[[Sequence[str], Sequence[str]], Float[np.ndarray, "first second"]]
NAME_COSINE, BOX_IOU = 0.85, 0.5
NAME_PROBABILITY = 0.95  # for COCO; 0.6 for the paper's own pictures
SCALE = 100  # of cosines before the softmax


@dataclass(frozen=True)
class ObjectScores:
    """The published scores of detection.

    Attributes:
        precision: Right among predicted, mean over the pictures that have predictions. Published as AP50.
        recall: Right among true, mean over the same pictures.
        mean_iou: Mean overlap of right ones, mean over the pictures that have any.
        left_out: Pictures without predictions, which count in no mean.
    """

    precision: float
    recall: float
    mean_iou: float
    left_out: int


def exactly(first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, "first second"]:
    """1 for the same words, 0 for others: the similarity to use where no encoder is at hand.

    Example:
        >>> exactly(["owl"], ["Owl", "cat"]).tolist()
        [[1.0, 0.0]]
    """
    return np.array([[float(a.casefold() == b.casefold()) for b in second] for a in first]).reshape(
        len(first), len(second)
    )


def detection(predicted: Sequence[Graph], truth: Sequence[Graph], similar: Similar = exactly) -> ObjectScores:
    """Objects: a prediction is right if a true object that none before it took has a like name and overlaps.

    Args:
        predicted: One graph a picture.
        truth: The true graphs of the same pictures.
        similar: The similarity of names.
    """
    shares, overlap_means, left_out = [], [], 0
    for own, true in zip(predicted, truth, strict=True):
        first, second = [[each for each in graph.objects if each.box] for graph in (own, true)]
        if not first:
            left_out += 1
            continue
        overlap = overlaps(first, second)  # (predicted, true)
        fits = (overlap > BOX_IOU) & (_names(similar, first, second) > NAME_COSINE)
        right: dict[int, float] = {}  # by the true object that is taken
        for row in range(len(first)):
            free = [column for column in np.flatnonzero(fits[row]).tolist() if column not in right]
            if free:
                right[free[0]] = overlap[row, free[0]]
        shares.append((len(right) / len(first), len(right) / len(second) if second else 0.0))
        overlap_means += [float(np.mean(list(right.values())))] if right else []
    precision, recall = np.mean(shares, axis=0) if shares else (0.0, 0.0)
    return ObjectScores(float(precision), float(recall), float(np.mean(overlap_means or [0.0])), left_out)


def triples_right(predicted: Sequence[Graph], truth: Sequence[Graph], similar: Similar = exactly) -> int:
    """Relations: how many are right in all, a count without a denominator.

    Subject, predicate and object have like names, both boxes overlap, and each true relation is taken once.
    """
    count = 0
    for own, true in zip(predicted, truth, strict=True):
        boxed = [{each.name: each for each in graph.objects if each.box} for graph in (own, true)]
        told, known = [
            [each for each in graph.relations if each.subject in objects and each.object in objects]
            for graph, objects in zip((own, true), boxed, strict=True)
        ]
        if not told or not known:
            continue
        fits = np.ones((len(told), len(known)), bool)
        for end in ("subject", "object"):
            first, second = (
                [objects[getattr(each, end)] for each in side]
                for side, objects in zip((told, known), boxed, strict=True)
            )
            fits &= (overlaps(first, second) > BOX_IOU) & (_names(similar, first, second) > NAME_COSINE)
        fits &= similar([each.predicate for each in told], [each.predicate for each in known]) > NAME_COSINE
        taken: set[int] = set()
        for row in fits:
            taken.update([column for column in np.flatnonzero(row).tolist() if column not in taken][:1])
        count += len(taken)
    return count


def planning(
    predicted: Graph, truth: Graph, similar: Similar = exactly, *, probability: float = NAME_PROBABILITY
) -> tuple[float, float, float]:
    """A planned layout: (precision, recall) of names and the mean overlap of all pairs of one name, right and wrong alike.

    Args:
        predicted: The planned graph, with boxes.
        truth: The true one.
        similar: The similarity of names; its softmax over the true names says which name is meant.
        probability: What that softmax must exceed.
    """
    first, second = [list(dict.fromkeys(each.concept for each in graph.objects)) for graph in (predicted, truth)]
    if not first or not second:
        return 0.0, 0.0, 0.0
    cosines = SCALE * similar(first, second)  # (names, names)
    shares = np.exp(cosines - cosines.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    rows, columns = np.nonzero(shares > probability)
    meant = {(first[row], second[column]) for row, column in zip(rows, columns, strict=True)}
    overlap = overlaps(predicted.objects, truth.objects)
    pairs = [
        overlap[row, column]
        for row, own in enumerate(predicted.objects)
        for column, other in enumerate(truth.objects)
        if (own.concept, other.concept) in meant
    ]
    return len(set(rows)) / len(first), len(set(columns)) / len(second), float(np.mean(pairs or [0.0]))


def _names(similar: Similar, first: Sequence[object], second: Sequence[object]) -> Float[np.ndarray, "first second"]:
    return similar(*([str(getattr(each, "concept", "")) for each in side] for side in (first, second)))
