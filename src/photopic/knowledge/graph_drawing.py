"""A picture from a bag of concepts: one sentence that says it all, and a region for the words of each object.

As BACON (arXiv:2407.03314) draws from its graphs, with layout guidance in place of a model trained on long captions: every object
has a phrase of its own (style, colour, name), which is read in its region alone. Objects of one phrase share one region, the
union of their boxes. Claims ``bacon.redraw_*`` of benchmarks/knowledge/bacon_redraw.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from photopic.core.errors import DataError
from photopic.data.layout import Box, Layout, Region
from photopic.data.scenes import COLOURS, NUMBER_WORDS, RELATIONS, STYLE_WORDS, plural, with_article
from photopic.knowledge.bag_file import read_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject
from photopic.knowledge.relation_layout import SYNONYMS, boxes_by_relations

CANVAS = 64  # pixels of the smallest square that boxes are taken to lie in where no size is told
TOGETHER = 2  # things that captions of text-to-image models name well in one sentence; of more each region has its own
GRID = 64  # cells along each side of a mask of several boxes


@dataclass(frozen=True)
class GraphDrawing:
    """What to draw of a bag.

    Attributes:
        prompt: One sentence.
        layout: A region for each phrase of the prompt that names objects; with a sentence about its object alone, where the prompt
            names more than two things.
    """

    prompt: str
    layout: Layout


def drawing_of(bag: BagOfConcepts, size: tuple[int, int] | None = None) -> GraphDrawing:
    """The prompt and the layout of a bag.

    Args:
        bag: With boxes, with relations, or with both; what has no box is placed by its relations.
        size: Width and height of the picture in whose pixels the boxes are; None: the smallest square of a power of two, from 64
            on, that holds them all.

    Raises:
        DataError: If it lists no object, a box leaves the picture, or the relations cannot all hold.

    Example:
        >>> from photopic.knowledge.bag_of_concepts import Relation
        >>> pair = (ConceptObject("owl 1", colour=("blue",)), ConceptObject("bear 1"))
        >>> drawing_of(BagOfConcepts(objects=pair, relations=(Relation("owl 1", "left of", "bear 1"),))).prompt
        'a blue owl left of a bear'
    """
    if not bag.objects:
        raise DataError("graph: expected objects to draw, found none listed")
    width, height = size or _canvas(bag)
    known = {item.name: _share(item, width, height) for item in bag.objects if item.box is not None}
    boxes = boxes_by_relations(bag, known) if len(known) < len(bag.objects) else known
    words = {item.name: phrase(item) for item in bag.objects}
    counts = Counter(words.values())  # in the order of the objects
    spoken = {each: plural(each) if _counted(counts) else each for each in counts}
    regions = [
        region_of(spoken[each], [boxes[name] for name, said in words.items() if said == each]) for each in counts
    ]
    overlapping = any(_shared(first, second) for first, second in combinations(regions, 2))
    first = {said: bag.by_name[name] for name, said in reversed(words.items())}  # of each phrase the first object
    if len(counts) > TOGETHER:
        alone = [sentence(replace(bag, objects=(first[each],), relations=())) for each in counts]
        regions = [replace(region, prompt=own) for region, own in zip(regions, alone, strict=True)]
    return GraphDrawing(sentence(bag), Layout(tuple(regions), may_overlap=overlapping))


def read_drawing(path: str | Path) -> GraphDrawing:
    """The same of a file with one bag.

    Raises:
        DataError: Names the file, and what it lacks.
    """
    records = list(read_bags(path))
    if len(records) != 1:
        raise DataError(
            f"{path}: expected one graph to draw, found {len(records)}; copy its line into a file of its own"
        )
    image = records[0].image
    try:
        return drawing_of(records[0].bag, (image.width, image.height) if image and image.width else None)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def phrase(item: ConceptObject) -> str:
    """The words of an object in a prompt: style and colour, where a word says them, and its name.

    Example:
        >>> phrase(ConceptObject("owl 2", description=("noto style",), colour=("blue",)))
        'noto blue owl'
    """
    styles = [style for style in STYLE_WORDS.values() if f"{style} style" in item.description][:1]
    colours = [each for each in item.colour if each in COLOURS][:1]
    return " ".join((*styles, *colours, item.concept))


def sentence(bag: BagOfConcepts) -> str:
    """All phrases, related where there are two, on the background: as captions of the emoji world are built.

    Example:
        >>> sentence(BagOfConcepts(background=("red background",), objects=(ConceptObject("owl 1"), ConceptObject("owl 2"))))
        'two owls on a red background'
    """
    words = {item.name: phrase(item) for item in bag.objects}
    names, counts = list(words), Counter(words.values())
    if _counted(counts):
        ((only, count),) = counts.items()
        said = f"{NUMBER_WORDS.get(count, str(count))} {plural(only)}"
    elif len(names) == 2 and (relation := _between(bag, *names)):
        said = f"{with_article(words[names[0]])} {relation} {with_article(words[names[1]])}"
    else:
        phrases = [with_article(words[name]) for name in names]
        said = " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
    grounds = [each.removesuffix(".") for each in bag.background[:1]]
    return (
        f"{said} on {with_article(grounds[0])}"
        if grounds and grounds[0].endswith("background")
        else ", ".join([said, *grounds])
    )


def _counted(counts: Counter[str]) -> bool:
    """Whether all objects have one phrase and there are several: "two owls"."""
    return len(counts) == 1 and counts.total() > 1


def _between(bag: BagOfConcepts, first: str, second: str) -> str | None:
    """How the first object stands to the second, where a spatial relation says so, whichever way round."""
    for each in bag.relations:
        relation = SYNONYMS.get(each.predicate.casefold())
        if relation and (each.subject, each.object) == (first, second):
            return relation
        if relation and (each.subject, each.object) == (second, first):
            return RELATIONS[RELATIONS.index(relation) ^ 1]  # left and right, above and below lie side by side
    return None


def _canvas(bag: BagOfConcepts) -> tuple[int, int]:
    edges = [edge for item in bag.objects if item.box for edge in item.box]
    side = CANVAS
    while side < max(edges, default=0):
        side *= 2
    return side, side


def _share(item: ConceptObject, width: int, height: int) -> Box:
    """The box of an object as shares of the picture."""
    assert item.box is not None
    left, top, right, bottom = item.box
    if left < 0 or top < 0 or right > width or bottom > height:
        raise DataError(
            f"graph: {item.name!r}: the box {list(item.box)} leaves the picture of {width} x {height} pixels"
        )
    return left / width, top / height, right / width, bottom / height


def region_of(words: str, boxes: Sequence[Box]) -> Region:
    """A box, or one mask for several, 0 to 1."""
    if len(boxes) == 1:
        return Region(words, boxes[0])
    covered = np.sum([Region(words, box).coverage(GRID, GRID) for box in boxes], axis=0)  # (GRID, GRID)
    return Region(words, mask=covered >= 0.5)


def _shared(first: Region, second: Region) -> bool:
    return bool(((first.coverage(GRID, GRID) > 0) & (second.coverage(GRID, GRID) > 0)).any())
