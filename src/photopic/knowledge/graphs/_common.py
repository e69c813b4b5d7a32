"""What classification on a graph shares: nodes with classes parted by base concept, features, and propagation along edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.data.knowledge_graph import KnowledgeGraph, Triples

CLASSES = "of event"  # the relation from a node to its classes; never an edge to learn along
FEWEST = 2  # training nodes of a class


@dataclass(frozen=True, kw_only=True)
class NodeClassesConfig(Config):
    """Which nodes, which of their classes, and how they are parted."""

    kind: Literal["text", "image"] = "text"  # kind of the nodes that are classified
    level: Literal["fine", "coarse"] = "fine"  # of a node's classes the one with fewest members, or with most
    valid: Annotated[float, Gt(0), Lt(0.5)] = 0.2  # share of base concepts to choose on
    test: Annotated[float, Gt(0), Lt(0.5)] = 0.2  # share of base concepts to measure on
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed parts and learns the same


@dataclass(frozen=True, eq=False)
class NodeClasses:
    """Nodes with one class each, in three parts.

    Attributes:
        nodes: Their numbers in the graph.
        labels: The class of each, from 0.
        part: Of each 0 for training, 1 for validation, 2 for test; all nodes of a base concept are in one.
        names: Of the classes.
        bases: The base concept of each, for intervals.
    """

    nodes: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    part: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    bases: Int64[np.ndarray, " n"]

    def of(self, part: int) -> Bool[np.ndarray, " n"]:
        """Which are in a part."""
        return self.part == part


def node_classes(graph: KnowledgeGraph, config: NodeClassesConfig) -> NodeClasses:
    """Nodes of a kind with their classes, parted by base concept.

    Raises:
        DataError: If fewer than two classes have two training nodes.
    """
    edges = graph.edges(CLASSES)
    edges = edges[np.isin(edges.head, graph.of_kind(config.kind))]
    size = np.bincount(edges.tail, minlength=graph.nodes)[edges.tail]
    order = np.argsort(-size if config.level == "fine" else size, kind="stable")  # the wanted class is written last
    found = np.full(graph.nodes, -1)
    found[edges.head[order]] = edges.tail[order]
    nodes = np.flatnonzero(found >= 0)
    bases = nodes if graph.bases is None else graph.bases[nodes]
    several, which = np.unique(bases, return_inverse=True)
    drawn = np.random.default_rng((config.seed, 1)).random(len(several))[which.reshape(-1)]  # one a base concept
    part = np.where(drawn < config.test, 2, np.where(drawn < config.test + config.valid, 1, 0))
    counts = np.bincount(found[nodes][part == 0], minlength=graph.nodes)
    kept = counts[found[nodes]] >= FEWEST
    classes = np.unique(found[nodes][kept])
    if len(classes) < 2 or not all((part[kept] == each).any() for each in (0, 1, 2)):
        raise DataError(
            f"classes: expected two or more with {FEWEST} {config.kind} nodes to learn from, found {len(classes)}"
        )
    labels = np.searchsorted(classes, found[nodes][kept])
    names = tuple(graph.texts[each] for each in classes.tolist())
    return NodeClasses(nodes[kept], labels, part[kept], names, bases[kept])


def node_features(graph: KnowledgeGraph) -> Float[np.ndarray, "nodes dim"]:
    """Features of length 1 of all nodes in one space; of kinds without features zeros.

    Raises:
        DataError: If there are none, or those of two kinds differ in width.
    """
    widths = {rows.shape[1] for rows in graph.features.values()}
    if len(widths) != 1:
        raise DataError(
            f"features: expected those of one encoder in the graph, found {len(widths)} widths; build it with --encoder"
        )
    found = np.zeros((graph.nodes, widths.pop()), np.float32)
    for kind, rows in graph.features.items():
        found[graph.of_kind(kind)] = F.normalize(torch.from_numpy(rows.astype(np.float32)), dim=1).numpy()
    return found


class Propagation:
    """Propagation along edges: A_hat = D^-1/2 (A + I) D^-1/2 of the graph without directions and classes.

    Args:
        graph: Its nodes.
        edges: Along which; None: all but those to classes.

    Example:
        >>> from photopic.data.knowledge_graph import RelationType
        >>> edges = Triples(np.array([0]), np.array([0], np.int16), np.array([1]))
        >>> continues, part = (RelationType("continues", "T_cross"),), np.zeros(1, np.int8)
        >>> both = KnowledgeGraph(("text",), np.zeros(2, np.int8), ("a", "b"), edges, continues, part)
        >>> Propagation(both)(torch.tensor([[1.0], [0.0]])).round(decimals=3).tolist()
        [[0.5], [0.5]]
    """

    def __init__(self, graph: KnowledgeGraph, edges: Triples | None = None):
        edges = propagated(graph) if edges is None else edges
        self.nodes, self.head, self.tail = graph.nodes, torch.from_numpy(edges.head), torch.from_numpy(edges.tail)

    @cached_property
    def degree(self) -> Int64[Tensor, " nodes"]:
        """Edges of each node, without the one to itself."""
        return torch.bincount(torch.cat([self.head, self.tail]), minlength=self.nodes)

    @cached_property
    def matrix(self) -> Tensor:
        """A_hat, sparse (nodes, nodes)."""
        own = torch.arange(self.nodes)
        rows, columns = torch.cat([self.head, self.tail, own]), torch.cat([self.tail, self.head, own])
        scale = (self.degree + 1).float().rsqrt()  # D counts the edge to itself
        values = scale[rows] * scale[columns]
        with torch.sparse.check_sparse_tensor_invariants(True):
            return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, (self.nodes,) * 2).coalesce()

    def __call__(self, values: Float[Tensor, "nodes width"]) -> Float[Tensor, "nodes width"]:
        """A_hat Z."""
        return self.matrix @ values


def propagated(graph: KnowledgeGraph) -> Triples:
    """The edges that values may go along: all but those to classes."""
    keep = np.array([each.name != CLASSES for each in graph.relations])
    return graph.triples[keep[graph.triples.relation]]


def smoothness(values: Float[Tensor, "nodes width"]) -> float:
    """SMV_G: the mean over pairs of nodes of half the distance of their normalised rows; 0 where all are alike (DAGNN, eq. 3).

    Example:
        >>> smoothness(torch.ones(5, 3))
        0.0
    """
    rows = F.normalize(values, dim=1)
    count = len(rows)
    squared = (2 - 2 * (rows @ rows.mT)).clamp_min(0)
    squared.fill_diagonal_(0)
    # two rows that are equal but for rounding are 0 apart
    distances = torch.where(squared < 1e-6, 0.0, squared.sqrt())
    return float(distances.sum() / (2 * count * (count - 1)))
