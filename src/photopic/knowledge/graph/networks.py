"""A graph as a ``networkx.MultiDiGraph``, for paths, components and drawings of graphs that are not large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from photopic.core.errors import DataError
from photopic.knowledge.graph.graph import Graph

if TYPE_CHECKING:
    import networkx

LARGEST = 1_000_000  # edges; networkx takes about a kilobyte for each


def as_network(graph: Graph, limit: int = LARGEST) -> networkx.MultiDiGraph:
    """Every node with kind, key, text, uris and attributes, every edge with relation, family, weight and source.

    Args:
        graph: Any.
        limit: Edges above which it is refused.

    Raises:
        DataError: If the graph has more edges.

    Example:
        >>> as_network(Graph("my.graph")).number_of_nodes()  # doctest: +SKIP
        214
    """
    count = len(graph.triples())
    if count > limit:
        raise DataError(
            f"{graph.folder}: expected at most {limit:,} edges for networkx, found {count:,}; take a part of it with: photopic "
            "knowledge query --sql"
        )
    import networkx

    network = networkx.MultiDiGraph()
    for number in range(len(graph)):
        node = graph.node(number)
        network.add_node(
            number, kind=node.kind, key=node.key, text=node.text, uris=list(node.uris), attributes=dict(node.attributes)
        )
    for edge in graph.edges(np.arange(count)):
        facts = {name: edge[name] for name in ("relation", "family", "weight", "source")}
        network.add_edge(edge["head"], edge["tail"], key=edge["relation"], **facts)
    return network
