"""A small knowledge graph as arrays: concepts in classes, whose keywords go by class, with pictures and features."""

from __future__ import annotations

import numpy as np

from photopic.data import emoji_world
from photopic.data.knowledge_graph import KnowledgeGraph, RelationType, Triples

KINDS = ("entity", "fact", "image", "text")
RELATIONS = (
    RelationType("mentions", "T_in"),
    RelationType("same thing", "I_cross", symmetric=True),
    RelationType("continues", "T_cross"),
    RelationType("describes", "IT_cross"),
    RelationType("of event", "fact"),
)
CLASSES, MEMBERS, STYLES = 4, 6, 2  # so many concepts of each class, drawings of each concept


def tiny_link_graph(*, seed: int = 0) -> KnowledgeGraph:
    """24 concepts: the last of each class is a variant of the one before; each mentions its class's two words and one of all."""
    rng, concepts = np.random.default_rng(seed), CLASSES * MEMBERS
    words, facts, pictures = 2 * CLASSES + 4, CLASSES, concepts * STYLES
    sizes = (words, facts, pictures, concepts)
    first_fact, first_picture, first_text = np.cumsum(sizes)[:3]
    edges = []
    for number in range(concepts):
        label, text = number // MEMBERS, first_text + number
        mentioned = {2 * label, 2 * label + 1, int(2 * CLASSES + rng.integers(4))}
        edges += [(text, 0, word) for word in sorted(mentioned)] + [(text, 4, first_fact + label)]
        own = first_picture + STYLES * number + np.arange(STYLES)
        edges += [(text, 3, each) for each in own] + [(own[0], 1, each) for each in own[1:]]
        edges += [(text, 2, text - 1)] if number % MEMBERS == MEMBERS - 1 else []
    head, relation, tail = np.array(sorted(edges)).T
    base = np.arange(concepts) - (
        np.arange(concepts) % MEMBERS == MEMBERS - 1
    )  # of a concept: itself, or what it varies
    bases = np.concatenate([concepts + np.arange(words + facts), np.repeat(base, STYLES), base])
    # of each class one base is for validation and one for test
    places = np.array([0, 1, 2])[np.select([base % MEMBERS == 1, base % MEMBERS == 2], [1, 2], 0)]
    part = np.where(relation == 0, places[np.maximum(head - first_text, 0)], 0)
    names = [each.name for each in emoji_world.select(split="known", style="noto") if "twemoji" in each.styles][
        :concepts
    ]
    texts = [f"{KINDS[kind]} {number}" for kind, count in enumerate(sizes[:3]) for number in range(count)] + names
    uris = (
        [""] * first_picture + [f"{style}/{name}" for name in names for style in ("noto", "twemoji")] + [""] * concepts
    )
    labels = np.arange(concepts) // MEMBERS
    seen = np.eye(CLASSES)[labels] + rng.normal(0, 0.3, (concepts, CLASSES))
    features = {"text": seen, "image": np.repeat(seen, STYLES, 0)}
    return KnowledgeGraph(
        KINDS,
        np.repeat(np.arange(4), sizes).astype(np.int8),
        tuple(texts),
        Triples(head.astype(np.int64), relation.astype(np.int16), tail.astype(np.int64)),
        RELATIONS,
        part.astype(np.int8),
        bases.astype(np.int64),
        tuple(uris),
        features={kind: rows.astype(np.float16) for kind, rows in features.items()},
    )
