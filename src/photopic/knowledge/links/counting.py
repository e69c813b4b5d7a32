"""Links by counting, without learning: what a learnt scorer has to beat before it counts as working.

``frequency`` says the most frequent tail of a relation. ``same class`` counts in how many nodes of the head's class the tail
occurs; asked for a head, it counts the same of the candidate's class. ``sibling, then class`` puts first what a variant of the head
has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import csr_array
from torch import Tensor

from photopic.data.knowledge_graph import KnowledgeGraph, Triples

COUNTERS = ("frequency", "same class", "sibling, then class")
CLASS_RELATION = "of event"
FIRST = 1e6  # of a sibling's tails, above every count


class Counter:
    """Counts of the training edges, as scores of all nodes as tails.

    Args:
        graph: Its training edges are counted; ``of event`` says which nodes are of one class, ``bases`` which of a kind are
            siblings.

    Example:
        >>> counter.scores("frequency")(heads, relations).shape  # doctest: +SKIP
        torch.Size([256, 15855])
    """

    def __init__(self, graph: KnowledgeGraph):
        relations, nodes, train = len(graph.relations), graph.nodes, graph.training()
        both = train.joined(train.reversed(relations))
        self.edges = [_matrix(both[both.relation == each], nodes) for each in range(2 * relations)]
        labels = _classes(graph)
        # members (nodes, groups): nodes of one group count for each other
        self.classes = _members(np.flatnonzero(labels >= 0), labels[labels >= 0], nodes)
        bases = np.arange(nodes) if graph.bases is None else graph.bases
        # of one kind: a picture of a thing is no sibling of the text that names it
        _, families = np.unique(bases * len(graph.kinds) + graph.kind, return_inverse=True)
        several = np.bincount(families)[families] > 1
        self.siblings = _members(np.flatnonzero(several), families[several], nodes)

    def scores(self, name: str) -> Callable[[Tensor, Tensor], Float[Tensor, "b nodes"]]:
        """What ``filtered_ranks`` asks of one of ``COUNTERS``."""

        def score(heads: Tensor, relations: Tensor) -> Float[Tensor, "b nodes"]:
            found = np.zeros((len(heads), self.classes.shape[0]))
            for relation in np.unique(relations):
                rows = np.flatnonzero(relations.numpy() == relation)
                found[rows] = self._of_relation(name, heads.numpy()[rows], int(relation))
            return torch.from_numpy(found)

        return score

    def _of_relation(self, name: str, heads: np.ndarray, relation: int) -> np.ndarray:
        frequency = np.asarray(self.edges[relation].sum(0)).reshape(1, -1)  # (1, nodes)
        found = frequency / (frequency.max() + 1)  # below 1: it only decides between equal counts
        if name != "frequency":
            found = found + self._shared(self.classes, heads, relation)
        if name == "sibling, then class":
            found = found + FIRST * self._shared(self.siblings, heads, relation)
        return np.broadcast_to(found, (len(heads), found.shape[1]))

    def _shared(self, members: csr_array, heads: np.ndarray, relation: int) -> np.ndarray:
        """Edges to the tail from the head's group, and from the head to the tail's group."""
        edges = self.edges[relation]
        of_head = members[heads] @ (members.T @ edges)  # (b, groups) @ (groups, nodes)
        of_tail = (edges[heads] @ members) @ members.T
        return np.asarray((of_head + of_tail).toarray())


def _classes(graph: KnowledgeGraph) -> Int64[np.ndarray, " nodes"]:
    """Of each node its finest class, the one with the fewest members; -1 without one."""
    edges = graph.edges(CLASS_RELATION)
    sizes = np.bincount(edges.tail, minlength=graph.nodes)
    order = np.argsort(-sizes[edges.tail], kind="stable")  # the finest is written last
    found = np.full(graph.nodes, -1)
    found[edges.head[order]] = edges.tail[order]
    return found


def _members(nodes: np.ndarray, groups: np.ndarray, count: int) -> csr_array:
    shape = (count, int(groups.max()) + 1 if len(groups) else 1)
    return csr_array((np.ones(len(nodes)), (nodes, groups)), shape=shape)


def _matrix(edges: Triples, nodes: int) -> csr_array:
    return csr_array((np.ones(len(edges)), (edges.head, edges.tail)), shape=(nodes, nodes))
