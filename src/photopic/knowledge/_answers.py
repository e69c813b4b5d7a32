"""Sentences of a bag of concepts, and how alike a question is to each: by shared words, or by the texts of a dual encoder."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject
from photopic.metrics.scene_graph import overlaps

Similarity = Callable[[str, Sequence[str]], Float[np.ndarray, " texts"]]
REGION_IOU = 0.3  # objects that a region means overlap it by more
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Sentence:
    """One thing that a bag says.

    Attributes:
        text: The words.
        about: Names of the objects that it is about; none of the picture as a whole.
    """

    text: str
    about: tuple[str, ...] = ()


def sentences_of(bag: BagOfConcepts, region: Box | None = None) -> list[Sentence]:
    """All that a bag says, or what it says of a region.

    Args:
        bag: What the picture shows.
        region: Left, top, right, bottom. Objects that overlap it by more than .3 are told with their relations; where none does,
            all is told, the global descriptions first.

    Example:
        >>> [each.text for each in sentences_of(BagOfConcepts(theme="night", objects=(ConceptObject("owl 1", colour=("white",)),)))]
        ['night', 'owl 1', 'owl 1: white']
    """
    inside = {item.name for item in bag.objects if region and _overlap(item, region) > REGION_IOU}
    told = [item for item in bag.objects if not inside or item.name in inside]
    globally = [] if inside else [bag.style, bag.theme, *bag.background, *bag.foreground]
    found = [Sentence(text) for text in globally if text]
    for item in told:
        found.append(Sentence(item.name, (item.name,)))
        found += (Sentence(f"{item.name}: {text}", (item.name,)) for text in (*item.description, *item.colour))
    for each in bag.relations:
        if not inside or inside & {each.subject, each.object}:
            found.append(Sentence(f"{each.subject} {each.predicate} {each.object}", (each.subject, each.object)))
    return found


def pointed(
    bag: BagOfConcepts, candidates: Sequence[Box], question: str, similarity: Similarity
) -> Float[np.ndarray, " candidates"]:
    """How well each candidate box answers a question: the similarity of the objects in it, weighted by their overlap.

    Args:
        bag: With boxes.
        candidates: Boxes to choose from; the largest number is the answer.
        question: What is asked for.
        similarity: Of the question to texts ``This is a NAME. DESCRIPTION``.

    Example:
        >>> owl, cat = ConceptObject("owl 1", box=(0, 0, 9, 9)), ConceptObject("cat 1", box=(20, 0, 29, 9))
        >>> pointed(BagOfConcepts(objects=(owl, cat)), [(19, 0, 28, 9), (1, 0, 9, 9)], "the owl", by_words).argmax().item()
        1
    """
    boxed = [item for item in bag.objects if item.box]
    if not boxed:
        return np.zeros(len(candidates))
    alike = similarity(
        question, [f"This is a {item.concept}. {'. '.join((*item.description, *item.colour))}" for item in boxed]
    )
    shared = overlaps([ConceptObject("region", box=each) for each in candidates], boxed)  # (candidates, objects)
    weight = shared.sum(1)
    return np.where(weight > 0, shared @ alike / np.where(weight > 0, weight, 1.0), -1.0)


def by_words(question: str, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
    """Cosine of the words that a question shares with each text, rare words counting more; plural and singular are one.

    Example:
        >>> by_words("where are the owls?", ["owl 1 on tree 1", "tree 1"]).argmax().item()
        0
    """
    counted = [_words(text) for text in (question, *texts)]
    seen = Counter(word for words in counted[1:] for word in words)
    weight = {word: math.log(1 + len(texts) / count) for word, count in seen.items()}  # inverse document frequency
    vectors = [{word: count * weight.get(word, 0.0) for word, count in words.items()} for words in counted]
    asked, *others = vectors
    shared = [sum(asked[word] * other.get(word, 0.0) for word in asked) for other in others]
    lengths = [math.hypot(*other.values()) * math.hypot(*asked.values()) for other in others]
    return np.array([dot / length if length else 0.0 for dot, length in zip(shared, lengths, strict=True)])


def _words(text: str) -> Counter[str]:
    return Counter(word.removesuffix("s") if len(word) > 3 else word for word in _WORD.findall(text.casefold()))


def _overlap(item: ConceptObject, region: Box) -> float:
    return float(overlaps([item], [ConceptObject("region", box=region)])[0, 0])
