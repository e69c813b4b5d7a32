"""Of which class is a node? By its features alone, and with the mean of the features around it: linear, or the nearest class.

Event classification of UKnow (arXiv:2302.06891), whose heads and numbers are not published: here classes are the graph's facts,
such as groups and subgroups of concepts, nodes of one base concept are on one side, and edges to classes are never neighbours. The
linear head is ridge regression onto the classes, its penalty chosen on validation. Tests: tests/knowledge/graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Table, View
from photopic.data.knowledge_graph import KnowledgeGraph
from photopic.knowledge.graphs._common import NodeClasses, NodeClassesConfig, node_classes, node_features, propagated
from photopic.metrics.intervals import bootstrap

PENALTIES = (1e-2, 1e-1, 1.0, 10.0)  # of ridge regression, tried on validation
TOP = 5


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(NodeClassesConfig):
    """Which nodes and classes."""


def classify_view(report: Report) -> View:
    """Each head with its accuracy."""
    values = report.values
    rows = [
        [
            row["head"],
            row["features"],
            f"{row['top1']:.1%}",
            f"{row['top1_low']:.1%} to {row['top1_high']:.1%}",
            f"{row['top5']:.1%}",
        ]
        for row in report.rows
    ]
    table = Table(["head", "features", "top-1", "95 % interval", "top-5"], rows)
    lead = f"{values['nodes']:,} nodes of {values['classes']} classes, {values['test']:,} to measure on, base concepts apart."
    return View("Classes of nodes", [Section("", [table])], lead)


@method(
    paper="arXiv:2302.06891",
    command="knowledge classify",
    examples=("Example: photopic knowledge classify my.graph/ --level coarse -o classes.html",),
    view=classify_view,
)
def classification(graph: KnowledgeGraph, *, config: ClassifyConfig = ClassifyConfig()) -> Steps[Report]:
    """Tell the class of a graph's nodes by their features, with and without those of their neighbours.

    Args:
        graph: Built with an encoder, and with classes.
        config: Which nodes and classes.

    Returns:
        A row a head and features, and one for the most frequent class: top-1 with the bounds of its 95 % interval over base
        concepts, and top-5.

    Raises:
        DataError: If the graph has no features, or fewer than two classes with two nodes to learn from.

    Example:
        >>> classification(graph).rows[-1]["top1"]  # doctest: +SKIP
        0.61
    """
    found, own = node_classes(graph, config), node_features(graph)
    kinds = {"own": own[found.nodes]}
    kinds["own and neighbours"] = np.concatenate([kinds["own"], neighbour_means(graph, own)[found.nodes]], 1)
    frequency = np.bincount(found.labels[found.of(0)], minlength=len(found.names)).astype(float)
    rows = [_row("most frequent", "none", np.tile(frequency, (len(found.nodes), 1)), found)]
    for number, (name, features) in enumerate(kinds.items(), 1):
        rows.append(_row("nearest class", name, nearest_class(features, found), found))
        rows.append(_row("linear", name, linear(features, found), found))
        yield Event("classifying", number, len(kinds))
    values = {"nodes": len(found.nodes), "classes": len(found.names), "test": int(found.of(2).sum())}
    return Report("concept classification", values, tuple(rows))


def neighbour_means(
    graph: KnowledgeGraph, features: Float[np.ndarray, "nodes dim"]
) -> Float[np.ndarray, "nodes dim_kinds"]:
    """Of each node the mean feature of its neighbours, one block of columns a kind with features; zeros where it has none."""
    edges, blocks = propagated(graph), []
    heads, tails = np.concatenate([edges.head, edges.tail]), np.concatenate([edges.tail, edges.head])
    for kind in sorted(graph.features):
        mine = np.isin(tails, graph.of_kind(kind))
        total = np.zeros_like(features)
        np.add.at(total, heads[mine], features[tails[mine]])
        counts = np.bincount(heads[mine], minlength=graph.nodes)
        blocks.append(total / np.maximum(counts, 1)[:, None])
    return np.concatenate(blocks, 1)


def nearest_class(features: Float[np.ndarray, "n dim"], found: NodeClasses) -> Float[np.ndarray, "n classes"]:
    """Minus the distance to the mean of each class's training nodes."""
    train, labels = features[found.of(0)], found.labels[found.of(0)]
    means = np.stack([train[labels == each].mean(0) for each in range(len(found.names))])  # (classes, dim)
    return -np.linalg.norm(features[:, None] - means[None], axis=2)


def linear(features: Float[np.ndarray, "n dim"], found: NodeClasses) -> Float[np.ndarray, "n classes"]:
    """Ridge regression onto the classes as ones and zeros, with the penalty that names most validation nodes right."""
    train = found.of(0)
    middle = features[train].mean(0)
    x, y = features[train] - middle, np.eye(len(found.names))[found.labels[train]]
    scores = []
    for penalty in PENALTIES:
        weight = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))  # (dim, classes)
        scores.append((features - middle) @ weight + y.mean(0))
    right = [(each.argmax(1) == found.labels)[found.of(1)].mean() for each in scores]
    return scores[int(np.argmax(right))]


def _row(head: str, features: str, scores: np.ndarray, found: NodeClasses) -> Mapping[str, Any]:
    test = found.of(2)
    order = np.argsort(-scores[test], axis=1, kind="stable")[:, :TOP]  # (test, 5)
    hits = order == found.labels[test][:, None]
    value, low, high = bootstrap(hits[:, 0].astype(float), groups=found.bases[test].tolist())
    top5 = float(hits.any(1).mean())
    return {"head": head, "features": features, "top1": value, "top1_low": low, "top1_high": high, "top5": top5}
