"""The concept table of the emoji world as a knowledge graph, with features of a bundled dual encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.harness.cache import ResultCache
from photopic.data import renderings
from photopic.data.knowledge_graph import KnowledgeGraph, read_knowledge_graph
from photopic.knowledge.build import build
from photopic.models.dual_encoder import DualEncoder

ENCODER = "emoji-clip-vit"


def emoji_graph(cache: ResultCache, *, features: Sequence[str] = ()) -> KnowledgeGraph:
    """The graph, keywords parted by base concept.

    Args:
        cache: Keeps the features.
        features: Kinds of nodes that get features: ``entity``, ``fact``, ``image``, ``text``.
    """
    with tempfile.TemporaryDirectory() as folder:
        build("emoji-world", output=f"{folder}/emoji.graph")
        graph = read_knowledge_graph(f"{folder}/emoji.graph")
    return replace(graph, features={kind: _features(cache, graph, kind) for kind in features})


def _features(cache: ResultCache, graph: KnowledgeGraph, kind: str) -> np.ndarray:
    nodes = graph.of_kind(kind).tolist()
    words = [(graph.uris if kind == "image" else graph.texts)[node] for node in nodes]

    def made() -> np.ndarray:
        model = DualEncoder.load(ENCODER)
        if kind != "image":
            return model.text_features([word.replace("/", " ").replace("-", " ") for word in words]).numpy()
        pairs = [word.partition("/")[::2] for word in words]  # style, name
        return model.image_features(renderings.pictures([(name, style) for style, name in pairs])).numpy()

    return cache.array({"features": kind, "of": words, "encoder": ENCODER}, made).astype(np.float16)
