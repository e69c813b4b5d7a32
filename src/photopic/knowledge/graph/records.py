"""What an extractor says of one thing: nodes by kind and key, and edges between them, before any of them has a number."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from photopic.data.knowledge_graph import Kind
from photopic.knowledge.graph.schema import STORED_AS

End = tuple[Kind, str]  # a node by kind and key


@dataclass(frozen=True)
class Node:
    """A node as an extractor names it; the same kind and key from several extractors are one node.

    Attributes:
        kind: Of ``KINDS``.
        key: What tells it from others of its kind: the SHA-256 of a picture's pixels, a text, ``picture#2`` for an object.
        text: What a person reads for it; the key where there is nothing better.
        uris: Where it lies, relative to the folder of the graph's pictures.
        attributes: JSON values. ``base`` names the concept it is a variant of, by which splits are made.
    """

    kind: Kind
    key: str
    text: str = ""
    uris: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> End:
        """Kind and key, as edges name it."""
        return self.kind, self.key


@dataclass(frozen=True)
class Edge:
    """An edge as an extractor names it.

    Attributes:
        head: Kind and key of the node that it leads from.
        relation: Name of the relation.
        tail: Kind and key of the node that it leads to.
        weight: How much it counts; of a similarity the cosine, otherwise 1.
    """

    head: End
    relation: str
    tail: End
    weight: float = 1.0


@dataclass(frozen=True)
class Found:
    """All that an extractor found in one thing.

    Attributes:
        nodes: In any order, repeated or not.
        edges: In any order; both ends of each are among the nodes of some extractor.

    Example:
        >>> found = Found((Node("text", "a bear"),), (Edge(("text", "a bear"), "mentions", ("entity", "bear")),))
        >>> found.line("captions/1", "c0ffee")[:41]
        '{"content": "c0ffee", "edges": [{"head_ki'
    """

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    def line(self, source: str, content: str) -> str:
        """One line of JSON for the tables to read, without its end.

        Args:
            source: Name and version of the extractor, with its encoder's fingerprint if it has one.
            content: SHA-256 of what was read.
        """
        nodes = [
            {
                "kind": each.kind,
                "key": each.key,
                "text": each.text or each.key,
                "uris": list(each.uris),
                "attributes": json.dumps(each.attributes, sort_keys=True, ensure_ascii=False, separators=(",", ":")),
            }
            for each in self.nodes
        ]
        edges = [_stored(each) for each in self.edges]
        return json.dumps({"content": content, "edges": edges, "nodes": nodes, "source": source}, ensure_ascii=False)


def _stored(edge: Edge) -> dict[str, Any]:
    """An edge in the one direction that is stored: ``b right of a`` becomes ``a left of b``."""
    head, tail, relation = edge.head, edge.tail, edge.relation
    if relation in STORED_AS:
        head, tail, relation = tail, head, STORED_AS[relation]
    return {
        "head_kind": head[0],
        "head": head[1],
        "relation": relation,
        "tail_kind": tail[0],
        "tail": tail[1],
        "weight": edge.weight,
    }


def normalised(text: str) -> str:
    """The key of a text or entity: composed Unicode, single spaces, no capitals.

    Example:
        >>> normalised("  A  Bear ")
        'a bear'
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()
