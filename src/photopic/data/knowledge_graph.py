"""A knowledge graph as arrays: what link prediction, classification and pre-training read of the folder of its tables.

Nodes are numbered 0 to N - 1; an edge is a head, a relation and a tail, and lies in one part: training, validation or test. A
relation belongs to one family of the protocol (in-image, in-text, image-image, text-text, image-text, or the fact of an event), and
a symmetric one is stored in one direction only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, Int64
from safetensors import SafetensorError
from safetensors.numpy import load_file

from photopic.core.errors import DataError
from photopic.core.files import read_file

PARTS = ("train", "valid", "test")
Kind = Literal["entity", "fact", "image", "object", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # of nodes, in the order in which tables number them


@dataclass(frozen=True)
class RelationType:
    """One relation of the protocol.

    Attributes:
        name: Such as ``contains``.
        family: In-image, in-text, image-image, text-text, image-text (``I_in``, ``T_in``, ``I_cross``, ``T_cross``, ``IT_cross``),
            or ``fact`` for what belongs to one event.
        heads: Kinds that it leads from.
        tail: Kind that it leads to.
        symmetric: Whether an edge holds in both directions; it is stored once, from the smaller id to the larger.
        inverse: The relation that says the same the other way round and is never stored, or empty.
    """

    name: str
    family: str
    heads: tuple[Kind, ...] = ()
    tail: Kind | None = None
    symmetric: bool = False
    inverse: str = ""


@dataclass(frozen=True, eq=False)
class Triples:
    """Edges: entry i says that ``head[i]`` stands in ``relation[i]`` to ``tail[i]``.

    Example:
        >>> Triples(np.array([0]), np.array([5], np.int16), np.array([1])).reversed(12).relation
        array([17], dtype=int16)
    """

    head: Int64[np.ndarray, " n"]
    relation: Int16[np.ndarray, " n"]
    tail: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.head)

    def __getitem__(self, index: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> Triples:
        return Triples(self.head[index], self.relation[index], self.tail[index])

    def reversed(self, relations: int) -> Triples:
        """The same edges from tail to head, under inverse relations numbered behind the ``relations`` that there are."""
        return Triples(self.tail, (self.relation + relations).astype(np.int16), self.head)

    def joined(self, other: Triples) -> Triples:
        """These edges, then the others."""
        pairs = zip((self.head, self.relation, self.tail), (other.head, other.relation, other.tail), strict=True)
        return Triples(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """Nodes, edges and features.

    Attributes:
        kinds: Names of the kinds of nodes.
        kind: Of each node, its place in ``kinds``.
        texts: Of each node what a person reads for it.
        triples: All edges.
        relations: What each number of a relation stands for.
        part: Of each edge its place in ``PARTS``.
        bases: Of each node the number of the concept that it is a variant or a picture of.
        uris: Of each node where its picture is, or empty.
        features: Of kinds whose nodes have some, one row a node of the kind, in order of the nodes.

    Raises:
        DataError: If an edge names a node or relation that is not there, or features are not one row a node of their kind.

    Example:
        >>> edges = Triples(np.array([0]), np.array([0], np.int16), np.array([1]))
        >>> graph = KnowledgeGraph(
        ...     ("text",), np.zeros(2, np.int8), ("a", "b"), edges, (RelationType("continues", "T_cross"),), np.zeros(1, np.int8)
        ... )
        >>> graph.nodes, len(graph.edges("continues"))
        (2, 1)
    """

    kinds: tuple[str, ...]
    kind: Int[np.ndarray, " nodes"]
    texts: tuple[str, ...]
    triples: Triples
    relations: tuple[RelationType, ...]
    part: Int[np.ndarray, " edges"]
    bases: Int64[np.ndarray, " nodes"] | None = None
    uris: tuple[str, ...] = ()
    features: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = np.concatenate([self.triples.head, self.triples.tail])
        if len(ends) and not 0 <= ends.min() <= ends.max() < self.nodes:
            raise DataError(f"edges: expected nodes from 0 to {self.nodes - 1}, found {ends.min()} to {ends.max()}")
        found, names = self.triples.relation, self.relations
        if len(found) and not 0 <= found.min() <= found.max() < len(names):
            raise DataError(f"edges: expected relations below {len(names)}, found {found.min()} to {found.max()}")
        for kind, rows in self.features.items():
            if len(rows) != (count := len(self.of_kind(kind))):
                raise DataError(f"features of {kind}: expected one row for each of {count} nodes, found {len(rows)}")

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.kind)

    def of_kind(self, name: str) -> Int64[np.ndarray, " _"]:
        """The nodes of a kind, in order."""
        return np.flatnonzero(self.kind == self.kinds.index(name)) if name in self.kinds else np.zeros(0, np.int64)

    def relation(self, name: str) -> int:
        """The number of a relation.

        Raises:
            DataError: If there is none of that name; the message lists those there are.
        """
        names = [each.name for each in self.relations]
        if name not in names:
            raise DataError(f"relation: expected one of {', '.join(names)}, found {name!r}")
        return names.index(name)

    def edges(self, name: str, part: str | None = None) -> Triples:
        """The edges of one relation, all or those of one part; none where the graph does not know it."""
        wanted = np.array([each.name == name for each in self.relations])[self.triples.relation]
        return self.triples[wanted if part is None else wanted & (self.part == PARTS.index(part))]

    def training(self) -> Triples:
        """The edges to learn from."""
        return self.triples[self.part == 0]

    def with_triples(self, triples: Triples, part: Int[np.ndarray, " edges"]) -> KnowledgeGraph:
        """The same nodes with other edges."""
        return replace(self, triples=triples, part=part)

    @cached_property
    def _digest(self) -> str:
        words = repr((self.kinds, self.texts, self.relations, self.uris, sorted(self.features)))
        arrays = [self.kind, self.triples.head, self.triples.relation, self.triples.tail, self.part]
        arrays += [self.features[name] for name in sorted(self.features)]
        arrays += [] if self.bases is None else [self.bases]
        hasher = hashlib.sha256(words.encode())
        for array in arrays:
            hasher.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def digest(self) -> str:
        """Hex sha256 of everything."""
        return self._digest


def read_knowledge_graph(folder: str | Path) -> KnowledgeGraph:
    """The graph of a folder that ``photopic knowledge build`` wrote, whole.

    Args:
        folder: With ``index.safetensors`` and ``relations.json``, and perhaps ``features.safetensors``.

    Raises:
        DataError: If there is no graph, or a file of it cannot be read.

    Example:
        >>> read_knowledge_graph("my.graph").nodes  # doctest: +SKIP
        15851
    """
    place = Path(folder)
    if not (place / "card.json").is_file():
        raise DataError(
            f"{folder}: expected the folder of a graph, found none; make one with: photopic knowledge build"
        )
    relations = json.loads(read_file(place / "relations.json", DataError))
    arrays, features = _tensors(place / "index.safetensors"), place / "features.safetensors"
    bounds, lines = arrays["line_starts"], arrays["lines"].tobytes()
    nodes = [json.loads(lines[start:stop]) for start, stop in itertools.pairwise(bounds)]
    # attributes of a node are a mapping, or JSON once more
    attributes = [
        each if isinstance(each, dict) else json.loads(each) for each in (node["attributes"] for node in nodes)
    ]
    bases = [str(each.get("base", number)) for number, each in enumerate(attributes)]
    return KnowledgeGraph(
        KINDS,
        np.repeat(np.arange(len(KINDS), dtype=np.int8), np.diff(arrays["kind_starts"])),
        tuple(node["text"] for node in nodes),
        Triples(arrays["head"].astype(np.int64), arrays["relation"].astype(np.int16), arrays["tail"].astype(np.int64)),
        tuple(
            RelationType(
                **{name: value for name, value in each.items() if name != "id"} | {"heads": tuple(each["heads"])}
            )
            for each in relations
        ),
        arrays["split"].astype(np.int8),
        np.unique(bases, return_inverse=True)[1].astype(np.int64),
        tuple(node["uris"][0] if node["uris"] else "" for node in nodes),
        _tensors(features) if features.is_file() else {},
    )


def _tensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}; build the graph again") from error
