"""A knowledge graph in its folder: nodes, triples, features, neighbourhoods and SQL, read when they are asked for."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Int8, Int64

from photopic.core.errors import DataError
from photopic.core.files import read_file, what_is_there
from photopic.data.knowledge_graph import KINDS, PARTS, Triples
from photopic.knowledge.graph.index import among, mapped, ranges
from photopic.knowledge.graph.records import normalised
from photopic.knowledge.graph.schema import RELATIONS, relation_id
from photopic.knowledge.graph.tables import CARD

Ids = Sequence[int] | Int64[np.ndarray, " ids"]  # of nodes


@dataclass(frozen=True)
class GraphNode:
    """A node of a graph.

    Attributes:
        id: From 0, by sorted (kind, key).
        kind: Of ``KINDS``.
        key: What tells it from others of its kind.
        text: What a person reads for it.
        uris: Where it lies; a picture under two names has two.
        attributes: JSON values.
    """

    id: int
    kind: str
    key: str
    text: str
    uris: tuple[str, ...]
    attributes: Mapping[str, Any]


class Graph:
    """A folder that ``photopic knowledge build`` wrote.

    Args:
        folder: With ``card.json``.

    Raises:
        DataError: If there is no graph, or one whose building was broken off.

    Example:
        >>> graph = Graph("pictures.graph")  # doctest: +SKIP
        >>> [graph.node(each).text for each in graph.find("panda")]  # doctest: +SKIP
        ['panda']
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        there = what_is_there(self.folder)
        if there != "a folder":
            raise DataError(f"{folder}: expected the folder of a graph, found {there or 'a file'}; check the path")
        if not (self.folder / CARD).is_file():
            raise DataError(
                f"{folder}: expected a graph with {CARD}, found none; make it, or go on after a kill, with: photopic "
                "knowledge build"
            )
        self._index, metadata = mapped(self.folder / "index.safetensors")
        self._kind_starts: list[int] = self._index["kind_starts"].tolist()  # (kinds + 1,)
        self.sources: tuple[str, ...] = tuple(json.loads(metadata["sources"]))

    def __len__(self) -> int:
        return self._kind_starts[-1]

    @cached_property
    def card(self) -> dict[str, Any]:
        """What ``card.json`` says: counts, extractors, encoder, licences, hashes, what could not be read."""
        found: dict[str, Any] = json.loads(read_file(self.folder / CARD, DataError))
        return found

    def digest(self) -> str:
        """Hex sha256 of the tables, from the card."""
        return str(self.card["digest"])

    # -- nodes

    def ids_of(self, kind: str) -> range:
        """The ids of all nodes of a kind, which lie together."""
        place = KINDS.index(kind)
        return range(self._kind_starts[place], self._kind_starts[place + 1])

    def kinds(self) -> Int8[np.ndarray, " nodes"]:
        """The kind of every node, as its place in ``KINDS``."""
        return np.repeat(np.arange(len(KINDS), dtype=np.int8), np.diff(self._index["kind_starts"]))

    def node(self, number: int) -> GraphNode:
        """One node.

        Args:
            number: Its id.

        Raises:
            IndexError: If there is no such node.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"node {number}: expected 0 to {len(self) - 1}")
        kind = KINDS[bisect(self._kind_starts, number) - 1]
        found = self._line(number)
        return GraphNode(number, kind, found["key"], found["text"], tuple(found["uris"]), found["attributes"])

    def find(self, word: str) -> list[int]:
        """Nodes whose text or uri is a word, whatever its capitals and spaces, by their ids; by halving, in no time."""
        wanted, place, found = normalised(word), self._place_of(word), list[int]()
        while place < len(self._index["name_ids"]) and self._name(place) == wanted:
            found.append(int(self._index["name_ids"][place]))
            place += 1
        return sorted(found)

    def names_near(self, word: str, count: int) -> list[str]:
        """Texts and uris beside where a word stands or would stand in their order, at most so many."""
        place, last = self._place_of(word), len(self._index["name_ids"])
        return list(dict.fromkeys(map(self._name, range(max(place - count // 2, 0), min(place + count // 2, last)))))

    def _place_of(self, word: str) -> int:
        """The place of the first name that is not smaller, in the order of UTF-8."""
        wanted = normalised(word).encode()
        low, high = 0, len(self._index["name_ids"])
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._name(middle).encode() < wanted else (low, middle)
        return low

    def _name(self, place: int) -> str:
        start, stop = self._index["name_starts"][place : place + 2]
        return self._index["names"][start:stop].tobytes().decode()

    def _line(self, number: int) -> dict[str, Any]:
        start, stop = self._index["line_starts"][number : number + 2]
        found: dict[str, Any] = json.loads(self._index["lines"][start:stop].tobytes().decode())
        return found

    def bases(self) -> Int64[np.ndarray, " nodes"]:
        """The number of the concept that each node is a variant of, from 0; nodes of one base have one number."""
        numbers: dict[str, int] = {}
        lines = (self._line(number) for number in range(len(self)))
        named = (line["attributes"].get("base") for line in lines)
        # a node without a base is one of its own
        found = [numbers.setdefault(each or str(place), len(numbers)) for place, each in enumerate(named)]
        return np.array(found, np.int64)

    @cached_property
    def features(self) -> dict[str, Float16[np.ndarray, "nodes dim"]]:
        """Features of length 1, by kind, in the order of the ids; none where the graph was built without an encoder."""
        path = self.folder / "features.safetensors"
        return mapped(path)[0] if path.is_file() else {}

    # -- edges

    def triples(self, split: str | None = None, relation: str | None = None) -> Triples:
        """The edges as arrays, sorted by head, relation, tail.

        Args:
            split: ``train``, ``valid`` or ``test``; None for all.
            relation: Name of the one relation that is asked for; None for all.
        """
        whole = Triples(*(np.array(self._index[name]) for name in ("head", "relation", "tail")))
        chosen = np.ones(len(whole), bool)
        if split is not None:
            chosen &= self._index["split"] == PARTS.index(split)
        if relation is not None:
            chosen &= whole.relation == relation_id(relation)
        return whole[chosen]

    def rows_of(self, nodes: Ids) -> Int64[np.ndarray, " rows"]:
        """The rows of all edges at some nodes, each once: those that leave one first, then those that only reach one."""
        some = np.unique(np.asarray(nodes, np.int64))
        leaving = ranges(self._index["out_starts"], some)
        reaching = self._index["in_rows"][ranges(self._index["in_starts"], some)]
        return np.concatenate([leaving, reaching[~among(self._index["head"][reaching], some)]])

    def neighbourhood(self, nodes: Ids, hops: int = 1) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
        """All edges on the paths of so many steps from some nodes, whatever their direction.

        Args:
            nodes: Where to begin.
            hops: Steps.

        Returns:
            Their rows, and at which step each was met, from 1.

        Example:
            >>> rows, hop = graph.neighbourhood(graph.find("panda"), hops=2)  # doctest: +SKIP
        """
        new, passed = np.unique(np.asarray(nodes, np.int64)), np.empty(0, np.int64)
        rows: list[Any] = [np.empty(0, np.int64)]
        for hop in range(hops):
            found = self.rows_of(new)
            head, tail = self._index["head"][found], self._index["tail"][found]
            # an edge was met before if one of its ends was passed before
            fresh = ~(among(head, passed) | among(tail, passed))
            rows.append(found[fresh])
            passed = np.union1d(passed, new)
            if hop + 1 < hops:
                new = np.setdiff1d(np.concatenate([head[fresh], tail[fresh]]), passed)
        return np.concatenate(rows), np.repeat(np.arange(hops + 1), [len(each) for each in rows])

    def nearest(
        self, rows: Int64[np.ndarray, " rows"], hop: Int64[np.ndarray, " rows"], limit: int
    ) -> Int64[np.ndarray, " some"]:
        """Places of the nearest edges of a neighbourhood, of one step the heaviest, then in the order of rows; at most so many."""
        weight, last = self._index["weight"][rows], len(rows)
        chosen = np.arange(last)
        if last > limit:
            # what cannot be among them is left out before anything is sorted: later steps, then lighter edges, then later rows
            step = np.partition(hop, limit - 1)[limit - 1]
            sure, open_ = np.flatnonzero(hop < step), np.flatnonzero(hop == step)
            room = limit - len(sure)
            lightest = -np.partition(-weight[open_], room - 1)[room - 1]
            heavier, equal = open_[weight[open_] > lightest], open_[weight[open_] == lightest]
            equal = equal[np.argpartition(rows[equal], limit - len(sure) - len(heavier) - 1)]
            chosen = np.concatenate([sure, heavier, equal[: limit - len(sure) - len(heavier)]])
        return chosen[np.lexsort((rows[chosen], -weight[chosen], hop[chosen]))]

    def edges(self, rows: Int64[np.ndarray, " rows"]) -> list[dict[str, Any]]:
        """Some edges with the names of all that an edge has.

        Args:
            rows: As ``neighbourhood`` gives them.

        Returns:
            ``head``, ``relation``, ``family``, ``tail``, ``weight``, ``source`` of each.
        """
        columns = [self._index[name][rows].tolist() for name in ("head", "relation", "tail", "weight", "source")]
        return [
            {
                "head": head,
                "relation": RELATIONS[relation].name,
                "family": RELATIONS[relation].family,
                "tail": tail,
                "weight": weight,
                "source": self.sources[source],
            }
            for head, relation, tail, weight, source in zip(*columns, strict=True)
        ]
