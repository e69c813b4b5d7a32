"""Extracted pictures in number, as extractors leave them: lines of nodes and edges, and features, all drawn at random.

Run as a module it is one build in a process of its own: ``python -m benchmarks.knowledge.prepared_graph ours FOLDER INTO``.
"""

from __future__ import annotations

import csv
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from photopic.core.events import finished
from photopic.knowledge.graph.assemble import Assembly, assemble
from photopic.knowledge.graph.extracted import Extracted
from photopic.knowledge.graph.records import Edge, Found, Node
from photopic.knowledge.graph.schema import RELATIONS, relation_id

ENCODER = {"name": "drawn", "fingerprint": "c0ffee" * 10}
DIM = 128
CLUSTERS = 2_000  # features lie about so many centres
WORDS, CONCEPTS, FACTS = 5_000, 1_000, 200
MENTIONS, OBJECTS = 20, 3  # of a picture
PART = 4_000  # pictures of one file


def prepare(folder: Path, pictures: int, seed: int = 0, *, shuffled: bool = False) -> None:
    """Write what extractors would have found in so many pictures.

    Args:
        folder: To write into; one that holds a mark of these numbers is left as it is.
        pictures: Each with a caption of 20 words, 3 objects in a row and a class of two levels.
        seed: Of all that is drawn.
        shuffled: Whether the pictures come in another order; what they hold is the same.
    """
    mark = folder / "prepared"
    if mark.exists():
        return
    rng = np.random.default_rng(seed)
    words = np.minimum(rng.zipf(1.3, (pictures, MENTIONS)), WORDS)  # few words are in many captions
    concepts, facts = rng.integers(0, CONCEPTS, (pictures, OBJECTS)), rng.integers(0, FACTS, pictures)
    centres = {kind: rng.normal(size=(CLUSTERS, DIM)) for kind in ("image", "text")}
    near = {kind: rng.integers(0, CLUSTERS, pictures) for kind in centres}
    noise = {kind: rng.normal(size=(pictures, DIM)).astype(np.float32) for kind in centres}
    order = np.random.default_rng(seed + 1).permutation(pictures) if shuffled else np.arange(pictures)
    kept = Extracted(folder, ENCODER["fingerprint"])
    for start in range(0, pictures, PART):
        chosen = order[start : start + PART]
        for place in chosen.tolist():
            kept.add("drawn/1", str(place), _picture(place, words[place], concepts[place], int(facts[place])))
        for kind, name in (("image", _picture_key), ("text", _caption)):
            rows = centres[kind][near[kind][chosen]] + noise[kind][chosen]  # (PART, DIM)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            kept.add_features(kind, [name(place) for place in chosen.tolist()], rows.astype(np.float16))
        kept.flush()
    mark.touch()


def _picture_key(place: int) -> str:
    return f"{place:064d}"  # as long as a hash


def _caption(place: int) -> str:
    return f"caption of the picture with the number {place:07d}"


def _picture(place: int, words: np.ndarray, concepts: np.ndarray, fact: int) -> Found:
    key = _picture_key(place)
    image, text = (
        Node("image", key, f"{place:07d}.jpg", attributes={"width": 640, "height": 480}),
        Node("text", _caption(place)),
    )
    entities = [Node("entity", f"word {word}") for word in np.unique(words)]
    objects = [Node("object", f"{key}#{number}", f"concept {name}") for number, name in enumerate(concepts)]
    facts = [Node("fact", f"group {fact // 10}"), Node("fact", f"group {fact // 10}/class {fact}")]
    edges = [
        Edge(text.end, "describes", image.end),
        *(Edge(text.end, "mentions", each.end) for each in entities),
        *(Edge(image.end, "contains", each.end) for each in objects),
        *(Edge(one.end, "left of", other.end) for one, other in itertools.pairwise(objects)),
        *(Edge(image.end, "of event", each.end) for each in facts),
    ]
    return Found((image, text, *entities, *objects, *facts), tuple(edges))


def ours(folder: Path, into: Path) -> None:
    """The graph as ``knowledge build`` merges it."""
    kept = Extracted(folder, ENCODER["fingerprint"])
    features = {kind: kept.rows(kind) for kind in ("image", "text")}
    into.mkdir(parents=True, exist_ok=True)
    finished(assemble(Assembly(kept.lines(), features=features, encoder=ENCODER), into))


def plain(folder: Path, into: Path) -> None:
    """The same nodes, edges and similarities with dictionaries, NumPy and CSV files, as one would write it in an afternoon."""
    kept = Extracted(folder, ENCODER["fingerprint"])
    nodes: dict[tuple[str, str], tuple[str, str]] = {}
    edges: dict[tuple[tuple[str, str], int, tuple[str, str]], float] = {}
    for line in _lines(kept):
        for each in line["nodes"]:
            nodes[each["kind"], each["key"]] = (each["text"], each["attributes"])
        for each in line["edges"]:
            ends = (each["head_kind"], each["head"]), (each["tail_kind"], each["tail"])
            edges[ends[0], relation_id(each["relation"]), ends[1]] = each["weight"]
    numbers = {end: number for number, end in enumerate(sorted(nodes))}
    found = {(numbers[head], relation, numbers[tail]): weight for (head, relation, tail), weight in edges.items()}
    texts: dict[str, set[int]] = {}
    shown: dict[int, list[str]] = {}
    for head, relation, tail in edges:
        if RELATIONS[relation].name == "contains":
            shown.setdefault(numbers[head], []).append(nodes[tail][0])
    for head, relation, tail in edges:
        if RELATIONS[relation].name == "describes":
            for name in shown.get(numbers[tail], ()):
                texts.setdefault(name, set()).add(numbers[head])
    for several in texts.values():
        chain = sorted(several)
        found |= {(later, relation_id("continues"), before): 1.0 for before, later in itertools.pairwise(chain)}
    for kind, alike in (("image", "similar"), ("text", "similar text")):
        keys = [key for each, key in sorted(nodes) if each == kind]
        first = numbers[kind, keys[0]]
        for one, other, cosine in _alike(kept.rows(kind)(keys).astype(np.float32)):
            found[first + one, relation_id(alike), first + other] = cosine
    into.mkdir(parents=True, exist_ok=True)
    with (into / "nodes.csv").open("w", newline="") as file:
        csv.writer(file).writerows((number, *end, *nodes[end]) for end, number in numbers.items())
    with (into / "edges.csv").open("w", newline="") as file:
        csv.writer(file).writerows((*each, found[each]) for each in sorted(found))


def _lines(kept: Extracted) -> Iterator[dict[str, Any]]:
    for path in kept.lines():
        with path.open() as file:
            yield from map(json.loads, file)


def _alike(rows: np.ndarray, wanted: int = 5, block: int = 1_000) -> Iterator[tuple[int, int, float]]:
    """Mutual nearest neighbours above chance, block by block."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(rows), (2, 100_000))
    chance = np.quantile((rows[first] * rows[second]).sum(1)[first != second], 0.95)
    nearest: list[dict[int, float]] = []
    for start in range(0, len(rows), block):
        cosine = rows[start : start + block] @ rows.T  # (block, nodes)
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = -2
        best = np.argpartition(-cosine, wanted, axis=1)[:, :wanted]
        nearest += [
            dict(zip(each.tolist(), line[each].tolist(), strict=True)) for each, line in zip(best, cosine, strict=True)
        ]
    for one, several in enumerate(nearest):
        yield from (
            (one, other, cosine)
            for other, cosine in several.items()
            if one < other and cosine > chance and one in nearest[other]
        )


if __name__ == "__main__":
    began, cpu = time.perf_counter(), time.process_time()
    {"ours": ours, "plain": plain}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    print(
        json.dumps(
            {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "peak_bytes": peak * 1024}
        )
    )
