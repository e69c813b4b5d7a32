"""The exact bag of concepts of a composed scene: names, boxes, relations and attributes as the scene was made."""

from __future__ import annotations

from collections import Counter

import numpy as np
from jaxtyping import Float

from photopic.data import emoji_world, scenes
from photopic.data.scenes import Scene
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject, Relation

LIVING_GROUPS = ("animals-nature", "people-body")  # animals, plants, people; faces are signs


def bag_of_scene(scene: Scene) -> BagOfConcepts:
    """All that is true of a scene, in words that depend on the picture only.

    Objects are numbered by concept in drawing order; a pair's relation is told once, from the object that was drawn first.
    An object that others hide completely has no box.

    Args:
        scene: Of ``photopic.data.scenes``; the boxes are in its pixels.

    Example:
        >>> from photopic.data.scenes import SceneOptions, sample_scene
        >>> bag = bag_of_scene(sample_scene(SceneOptions(("cat", "fox"), objects=(0.0, 1.0, 0.0, 0.0)), seed=3))
        >>> [item.name for item in bag.objects], [each.predicate for each in bag.relations]
        (['cat 1', 'fox 1'], ['right of'])
    """
    seen: Counter[str] = Counter()
    objects = []
    for item, box in zip(scene.placements, scene.boxes, strict=True):
        seen[item.concept] += 1
        objects.append(
            ConceptObject(
                name=f"{item.concept} {seen[item.concept]}",
                living=is_living(item.concept),
                place="foreground",
                description=(f"{scenes.STYLE_WORDS[item.style]} style",),
                colour=(item.tint,) if item.tint else (),
                box=_whole(box) if box.any() else None,
            )
        )
    return BagOfConcepts(
        style=" and ".join(sorted({scenes.STYLE_WORDS[item.style] for item in scene.placements})) + " style",
        theme=" and ".join(sorted(scene.counts)),
        background=(scene.background.phrase,),
        foreground=tuple(_counted(concept, count) for concept, count in scene.counts.items()),
        objects=tuple(objects),
        relations=tuple(
            Relation(objects[first].name, relation, objects[second].name)
            for first, relation, second in scene.relations
            if first < second  # the other half says the same from the other side
        ),
    )


def is_living(concept: str) -> bool:
    """Whether a concept of the emoji world is an animal, a plant or a person.

    Example:
        >>> is_living("owl"), is_living("guitar")
        (True, False)
    """
    return emoji_world.concept(concept).group in LIVING_GROUPS


def _counted(concept: str, count: int) -> str:
    return scenes.with_article(concept) if count == 1 else f"{scenes.NUMBER_WORDS[count]} {scenes.plural(concept)}"


def _whole(box: Float[np.ndarray, "4"]) -> Box:
    left, top, right, bottom = (int(edge) for edge in box)
    return left, top, right, bottom
