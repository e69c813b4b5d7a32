"""A bag of concepts as nodes and edges: what a picture contains, and how its objects stand to each other."""

from __future__ import annotations

from photopic.data.scenes import RELATIONS
from photopic.knowledge.bag_of_concepts import BagOfConcepts
from photopic.knowledge.graph.records import Edge, End, Found, Node


def bag_found(picture: str, bag: BagOfConcepts, annotator: str = "") -> Found:
    """Objects with their boxes and words, and those of their relations that the protocol has.

    Args:
        picture: Key of the picture's node.
        bag: What it shows; an object's key is ``PICTURE#NAME``.
        annotator: Who says so, such as the name of a model.

    Example:
        >>> from photopic.data.scenes import SceneOptions, sample_scene
        >>> from photopic.knowledge.scene_bags import bag_of_scene
        >>> bag = bag_of_scene(sample_scene(SceneOptions(("cat", "fox"), objects=(0.0, 1.0, 0.0, 0.0)), seed=3))
        >>> [(edge.head[1], edge.relation, edge.tail[1]) for edge in bag_found("aa", bag).edges][-1]
        ('aa#cat 1', 'right of', 'aa#fox 1')
    """
    whole = Node("image", picture)
    ends: dict[str, End] = {each.name: ("object", f"{picture}#{each.name}") for each in bag.objects}
    objects = [
        Node(
            *ends[each.name],
            each.concept,
            attributes={
                name: value
                for name, value in (
                    ("annotator", annotator),
                    ("box", each.box),
                    ("colour", each.colour),
                    ("description", each.description),
                    ("place", each.place),
                )
                if value
            },
        )
        for each in bag.objects
    ]
    inside = [
        Edge(ends[each.subject], each.predicate, ends[each.object])
        for each in bag.relations
        if each.predicate in RELATIONS and each.subject in ends and each.object in ends
    ]
    return Found((whole, *objects), (*(Edge(whole.end, "contains", each.end) for each in objects), *inside))
