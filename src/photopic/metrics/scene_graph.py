"""How much of a scene graph another one tells: objects, relations and attributes, with and without where they are.

Objects are matched one to one (Hungarian method), every picture counts, and a picture of which nothing was predicted counts as 0.
The published scores, which do otherwise, are in ``photopic.metrics.scene_graph_published``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from photopic.metrics.layout import box_iou

INVERSE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}  # A left of B = B right of A
MATCH_IOU = 0.5  # boxes of one object overlap by more


@runtime_checkable
class GraphObject(Protocol):
    """An object of a graph, as ``ConceptObject`` is one."""

    @property
    def name(self) -> str: ...
    @property
    def concept(self) -> str: ...
    @property
    def description(self) -> tuple[str, ...]: ...
    @property
    def colour(self) -> tuple[str, ...]: ...
    @property
    def box(self) -> tuple[int, int, int, int] | None: ...


@runtime_checkable
class GraphRelation(Protocol):
    """A relation of a graph."""

    @property
    def subject(self) -> str: ...
    @property
    def predicate(self) -> str: ...
    @property
    def object(self) -> str: ...


@runtime_checkable
class Graph(Protocol):
    """What is compared, as ``BagOfConcepts`` is one."""

    @property
    def objects(self) -> Sequence[GraphObject]: ...
    @property
    def relations(self) -> Sequence[GraphRelation]: ...


@dataclass(frozen=True)
class Tally:
    """How many of those predicted are right.

    Attributes:
        hits: Right ones.
        predicted: All predicted.
        truth: All there are.

    Example:
        >>> Tally(1, 2, 4).precision, Tally(1, 2, 4).recall, round(Tally(1, 2, 4).f1, 3)
        (0.5, 0.25, 0.333)
    """

    hits: int = 0
    predicted: int = 0
    truth: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.hits + other.hits, self.predicted + other.predicted, self.truth + other.truth)

    @property
    def precision(self) -> float:
        """Share of the predicted that is right; 0 where nothing was predicted, but 1 where there is nothing either."""
        return self.hits / self.predicted if self.predicted else float(not self.truth)

    @property
    def recall(self) -> float:
        """Share of the truth that was predicted; 0 where there is none, but 1 where nothing was predicted either."""
        return self.hits / self.truth if self.truth else float(not self.predicted)

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 1 where nothing was there and nothing predicted."""
        return 2 * self.hits / (self.predicted + self.truth) if self.predicted + self.truth else 1.0


@dataclass(frozen=True)
class Comparison:
    """A predicted graph against the true one.

    Attributes:
        objects: By their concepts, wherever they are.
        relations: As (concept, predicate, concept), either way round: A left of B is B right of A.
        attributes: Words of description and colour, of objects that were matched by concept.
        attributes_of_matched: The same over matched objects alone: how well what was found is described.
        located: Objects of one concept whose boxes overlap.
        located_relations: Relations between located objects.
        iou: Sum of the overlaps of located objects.
    """

    objects: Tally = Tally()
    relations: Tally = Tally()
    attributes: Tally = Tally()
    attributes_of_matched: Tally = Tally()
    located: Tally = Tally()
    located_relations: Tally = Tally()
    iou: float = 0.0

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def mean_iou(self) -> float:
        """Mean overlap of located objects; 0 where none is."""
        return self.iou / self.located.hits if self.located.hits else 0.0


def compare(predicted: Graph, truth: Graph, *, iou: float = MATCH_IOU) -> Comparison:
    """Count what a predicted graph has right.

    Args:
        predicted: The graph of one picture.
        truth: The true graph of the same picture.
        iou: Boxes of one object overlap by more than this, 0 to 1.

    Example:
        >>> from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject
        >>> owls = BagOfConcepts(objects=(ConceptObject("owl 1"), ConceptObject("owl 2")))
        >>> compare(BagOfConcepts(objects=(ConceptObject("owl 1"),)), owls).objects
        Tally(hits=1, predicted=1, truth=2)
    """
    first, second = list(predicted.objects), list(truth.objects)
    pairs = matched(first, second)
    words = [_attributes(item) for item in first], [_attributes(item) for item in second]
    shared = sum((words[0][row] & words[1][column]).total() for row, column in pairs)
    told, true = (sum(each.total() for each in side) for side in words)
    matched_told, matched_true = (sum(side[pair[at]].total() for pair in pairs) for at, side in enumerate(words))
    triples = _triples(predicted), _triples(truth)
    placed = located(first, second, iou)
    return Comparison(
        objects=Tally(len(pairs), len(first), len(second)),
        relations=Tally((triples[0] & triples[1]).total(), triples[0].total(), triples[1].total()),
        attributes=Tally(shared, told, true),
        attributes_of_matched=Tally(shared, matched_told, matched_true),
        located=Tally(len(placed), len(first), len(second)),
        located_relations=_located_relations(predicted, truth, placed),
        iou=float(sum(placed.values())),
    )


def means(comparisons: Iterable[Comparison], of: str) -> dict[str, float]:
    """Mean precision, recall and F1 over all pictures.

    Args:
        comparisons: One a picture.
        of: A field of ``Comparison``, such as ``objects``.

    Example:
        >>> means([Comparison(objects=Tally(1, 1, 1)), Comparison(objects=Tally(0, 0, 1))], "objects")
        {'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
    """
    tallies = [getattr(each, of) for each in comparisons]
    names = ("precision", "recall", "f1")
    return {name: float(np.mean([getattr(tally, name) for tally in tallies])) if tallies else 0.0 for name in names}


def matched(first: Sequence[GraphObject], second: Sequence[GraphObject]) -> list[tuple[int, int]]:
    """Pairs of objects of one concept, as many as there can be; of these the ones that lie, or else look, most alike."""

    overlap = overlaps(first, second)  # (first, second)
    score = np.zeros(overlap.shape)  # 0 for another concept, else 1 to 2: one more pair outweighs any likeness
    for row, column in np.argwhere(_same_concept(first, second)):
        own, other = first[row], second[column]
        said, true = _attributes(own), _attributes(other)
        likeness = (
            overlap[row, column] if own.box and other.box else (said & true).total() / max((said | true).total(), 1)
        )
        score[row, column] = 1 + likeness / (1 + min(score.shape))
    return _assigned(score)


def located(
    first: Sequence[GraphObject], second: Sequence[GraphObject], iou: float = MATCH_IOU
) -> dict[tuple[int, int], float]:
    """Pairs of objects of one concept whose boxes overlap by more than ``iou``, with the overlap: the largest sum of them."""
    overlap = overlaps(first, second)  # (first, second)
    overlap = np.where(_same_concept(first, second) & (overlap > iou), overlap, 0.0)
    return {pair: float(overlap[pair]) for pair in _assigned(overlap)}


def overlaps(first: Sequence[GraphObject], second: Sequence[GraphObject]) -> Float[np.ndarray, "first second"]:
    """Intersection over union of each two boxes; 0 where one is not known."""
    boxes = [np.array([item.box or (0, 0, 0, 0) for item in side], float).reshape(-1, 4) for side in (first, second)]
    shape = (len(first), len(second), 4)
    return box_iou(np.broadcast_to(boxes[0][:, None], shape), np.broadcast_to(boxes[1][None], shape))


def _same_concept(first: Sequence[GraphObject], second: Sequence[GraphObject]) -> Bool[np.ndarray, "first second"]:
    names = [np.array([item.concept.casefold() for item in side], object) for side in (first, second)]
    return np.asarray(names[0][:, None] == names[1][None], bool)


def _assigned(score: Float[np.ndarray, "rows columns"]) -> list[tuple[int, int]]:
    """The one-to-one pairs with the largest sum, without those of score 0."""
    rows, columns = linear_sum_assignment(score, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if score[row, column] > 0]


def _attributes(item: GraphObject) -> Counter[tuple[str, str]]:
    kinds = {"description": item.description, "colour": item.colour}
    return Counter((kind, text.casefold()) for kind, texts in kinds.items() for text in texts)


def _triples(graph: Graph) -> Counter[tuple[str, str, str]]:
    concepts = {item.name: item.concept.casefold() for item in graph.objects}
    return Counter(_one_way(each, lambda end: concepts.get(end, end.casefold())) for each in graph.relations)


def _one_way(relation: GraphRelation, name: Callable[[str], str]) -> tuple[str, str, str]:
    """A relation in the direction that comes first in the alphabet, where its predicate has an inverse."""
    first, predicate, second = name(relation.subject), relation.predicate.casefold(), name(relation.object)
    if predicate not in INVERSE:
        return first, predicate, second
    return min((first, predicate, second), (second, INVERSE[predicate], first), key=lambda triple: triple[1])


def _located_relations(predicted: Graph, truth: Graph, pairs: Iterable[tuple[int, int]]) -> Tally:
    """Relations whose ends are both located; the truth's objects carry the names of those that are paired with them."""
    names = {truth.objects[column].name: predicted.objects[row].name for row, column in pairs}
    told = Counter(_one_way(each, lambda end: end) for each in predicted.relations)
    true = Counter(
        _one_way(each, lambda end: names.get(end, f"{end}\n")) for each in truth.relations
    )  # no name has a \n
    return Tally((told & true).total(), told.total(), true.total())
