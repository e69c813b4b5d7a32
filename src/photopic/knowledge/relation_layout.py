"""Boxes for objects of which only relations are known: places on a grid where every spatial relation holds and nothing overlaps.

A small search with backtracking; boxes that are known stay where they are. Left of, right of, above and below are meant as
scenes of the emoji world have them: centres apart by more than a quarter of the picture, along the axis where they are farther
apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, sqrt

from photopic.core.errors import DataError
from photopic.data.layout import Box
from photopic.data.scenes import RELATIONS
from photopic.knowledge.bag_of_concepts import BagOfConcepts

APART = 0.25  # of the picture, between centres of related objects
STEPS = 9  # places along each axis
FILLED = 0.88  # of its cell, the side of an object
MOST_TRIED = 50_000  # places, before a bag counts as one that cannot be laid out
SYNONYMS = {  # what language models write, as the relation it says
    **{relation: relation for relation in RELATIONS},
    "to the left of": "left of", "on the left of": "left of", "to the right of": "right of", "on the right of": "right of",
    "over": "above", "on top of": "above", "on": "above", "under": "below", "underneath": "below", "beneath": "below",
}  # fmt: skip
Centre = tuple[float, float]  # x, y as shares of the picture


def boxes_by_relations(bag: BagOfConcepts, known: Mapping[str, Box]) -> dict[str, Box]:
    """A box for every object of a bag, as shares of the picture.

    Args:
        bag: The objects and relations; relations of other kinds ask nothing.
        known: Boxes of objects by name, 0 to 1.

    Raises:
        DataError: If the relations contradict each other or the boxes, or there is no room.

    Example:
        >>> from photopic.knowledge.bag_of_concepts import ConceptObject, Relation
        >>> pair = (ConceptObject("owl 1"), ConceptObject("bear 1"))
        >>> found = boxes_by_relations(BagOfConcepts(objects=pair, relations=(Relation("owl 1", "left of", "bear 1"),)), {})
        >>> found["owl 1"][2] <= found["bear 1"][0]
        True
    """
    asked = [
        (each.subject, SYNONYMS[each.predicate.casefold()], each.object)
        for each in bag.relations
        if not each.external and each.predicate.casefold() in SYNONYMS
    ]
    free = [item.name for item in bag.objects if item.name not in known]
    count = len(bag.objects)
    # as large as the picture has room for, or smaller, where a row of them is asked for
    sides = [FILLED / cells for cells in range(max(2, ceil(sqrt(count))), max(2, count) + 1)] if count > 1 else [0.76]
    # the most related first: they have the least choice
    free.sort(key=lambda name: -sum(name in (first, second) for first, _, second in asked))
    tried = (next(_placed(free, side, asked, dict(known), iter(range(MOST_TRIED))), None) for side in sides)
    found = next((each for each in tried if each is not None), None)
    if found is None:
        said = "; ".join(f"{first} {relation} {second}" for first, relation, second in asked[:4])
        raise DataError(
            f"graph: no places for {', '.join(free[:4])} such that all of {said or 'them'} hold; "
            "give boxes, or take a relation out"
        )
    return {item.name: found[item.name] for item in bag.objects}


def holds(relation: str, first: Box, second: Box) -> bool:
    """Whether boxes stand so, as scenes of the emoji world tell it.

    Example:
        >>> holds("above", (0.3, 0.0, 0.7, 0.4), (0.3, 0.6, 0.7, 1.0))
        True
    """
    gap = [(second[axis] + second[axis + 2] - first[axis] - first[axis + 2]) / 2 for axis in (0, 1)]
    axis = int(abs(gap[1]) > abs(gap[0]))
    return abs(gap[axis]) > APART and RELATIONS[2 * axis + int(gap[axis] < 0)] == relation


def _placed(
    free: Sequence[str], side: float, asked: Sequence[tuple[str, str, str]], boxes: dict[str, Box], tries: Iterator[int]
) -> Iterator[dict[str, Box]]:
    """All ways to place what is free, one object after the other."""
    if not free:
        if all(holds(relation, boxes[first], boxes[second]) for first, relation, second in asked):
            yield boxes
        return
    name, *rest = free
    for x, y in _centres(side):
        if next(tries, None) is None:
            return
        box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        trial = boxes | {name: box}
        met = (
            holds(relation, trial[a], trial[b]) for a, relation, b in asked if name in (a, b) and {a, b} <= trial.keys()
        )
        if not any(_overlap(box, other) for other in boxes.values()) and all(met):
            yield from _placed(rest, side, asked, trial, tries)


def _centres(side: float) -> list[Centre]:
    """Places on a grid, those at the middle of a row or column of objects first."""
    reach = [side / 2 + 0.02 + (0.96 - side) * step / (STEPS - 1) for step in range(STEPS)]
    ends = [reach[0], reach[-1], reach[STEPS // 2]]  # corners and middles leave the most room for the others
    order = [*ends, *(each for each in reach if each not in ends)]
    return sorted(((x, y) for y in order for x in order), key=lambda at: order.index(at[0]) + order.index(at[1]))


def _overlap(first: Box, second: Box) -> bool:
    across = min(first[2], second[2]) - max(first[0], second[0])
    return across > 1e-9 and min(first[3], second[3]) - max(first[1], second[1]) > 1e-9
