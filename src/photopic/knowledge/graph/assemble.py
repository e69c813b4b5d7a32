"""From what extractors found to a graph in its folder: numbering, similarities, splits, tables, index and card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16

from photopic.core.events import Event, Steps
from photopic.core.files import share_as_usual
from photopic.knowledge.graph.index import write_index
from photopic.knowledge.graph.neighbours import SimilarityConfig, alike
from photopic.knowledge.graph.schema import RELATIONS, relation_id, relation_table
from photopic.knowledge.graph.splits import split_edges
from photopic.knowledge.graph.tables import CARD, ROWS_PER_FILE, TABLES, Construction, replace_tables

FORMAT = 1
SIMILARITY = {"image": "similar", "text": "similar text"}  # relation that features of a kind make
VERSION = 1  # of the similarity, which is an extractor as well
CONTINUITY = "continuity/1"  # source of edges between captions that share an object
WORK = "extracted"  # folder inside a graph's, for what was found so far and what is not yet a table
Rows = Callable[[Sequence[str]], Float16[np.ndarray, "nodes dim"]]  # features of nodes by their keys, of length 1


@dataclass(frozen=True)
class Assembly:
    """What to make a graph of.

    Attributes:
        lines: Files of JSON lines, as ``Found.line`` writes them.
        wanted: The (source, content) pairs that count; None for all.
        features: For a kind of nodes the function that gives their features; none where there is no encoder.
        encoder: Name and fingerprint of the model that made the features, or None.
        facts: What else the card says, JSON values.
        licence: Of pictures for which no extractor found one; None for unknown.
        similarity: When two nodes are alike.
        split_relations: Relations whose edges are parted.
        shares: Of validation and test.
        seed: Of the splits.
        rows_per_file: Above it a table is a folder of files.
    """

    lines: Sequence[Path]
    wanted: Sequence[tuple[str, str]] | None = None
    features: Mapping[str, Rows] = field(default_factory=dict)
    encoder: Mapping[str, str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
    split_relations: tuple[str, ...] = ("mentions",)
    shares: tuple[float, float] = (0.1, 0.1)
    seed: int = 0
    rows_per_file: int = ROWS_PER_FILE


def assemble(parts: Assembly, folder: Path) -> Steps[dict[str, Any]]:
    """Make the tables and put them into a folder, whole or not at all.

    Args:
        parts: What to make it of.
        folder: Of the graph; tables that are there are replaced.

    Returns:
        What the card says.

    Raises:
        DataError: If an extractor found what cannot be in a graph, or there are too many nodes for an exact search.
    """
    made = folder / WORK / "tables"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    yield Event("numbering")
    tables = Construction(parts.lines, made, parts.wanted)
    tables.chain_texts(CONTINUITY)
    if parts.licence is not None:
        tables.license_pictures(parts.licence)
    features, thresholds = {}, {}
    for kind, rows in parts.features.items():
        yield Event("comparing")
        first, keys = tables.keys(kind)
        if keys:
            features[kind] = rows(keys)
            found = alike(features[kind], parts.similarity)
            edges = {"head": found.head + first, "tail": found.tail + first, "weight": found.weight}
            tables.add(SIMILARITY[kind], similarity_source(parts.encoder or {}), edges)
            thresholds[kind] = round(found.threshold, 6)
    yield Event("joining")
    tables.close()
    for problem in split_edges(tables, parts.split_relations, *parts.shares, seed=parts.seed):
        yield Event("joining", warning=problem)
    yield Event("writing")
    for table in TABLES:
        tables.write(table, made, parts.rows_per_file)
    (made / "relations.json").write_text(_json(relation_table()))
    if features:
        from safetensors.numpy import save_file

        save_file(
            {kind: np.ascontiguousarray(each, np.float16) for kind, each in features.items()},
            made / "features.safetensors",
        )
        share_as_usual(made / "features.safetensors")
    write_index(tables, made / "index.safetensors")
    share_as_usual(made / "index.safetensors")
    card = _card(tables, parts, made) | ({"similarity_thresholds": thresholds} if thresholds else {})
    (made / CARD).write_text(_json(card))
    tables.database.close()
    replace_tables(made, folder)
    shutil.rmtree(made)
    return card


def similarity_source(encoder: Mapping[str, str]) -> str:
    """What an edge of similarity names as its source.

    Example:
        >>> similarity_source({"name": "emoji-clip-vit", "fingerprint": "c0ffee" * 10})
        'similarity/1:c0ffeec0ffee'
    """
    return f"similarity/{VERSION}:{encoder.get('fingerprint', '')[:12]}"


def _card(tables: Construction, parts: Assembly, made: Path) -> dict[str, Any]:
    """Counts, hashes and licences; no date, so that the same input makes the same card."""
    counted = {
        "kinds": "SELECT kind, count(*) FROM nodes GROUP BY ALL ORDER BY ALL",
        "relations": "SELECT relation, count(*) FROM edges GROUP BY ALL ORDER BY ALL",
        "splits": "SELECT split, count(*) FROM splits GROUP BY ALL ORDER BY ALL",
        "sources": "SELECT source, count(*) FROM edges GROUP BY ALL ORDER BY ALL",
        "licences": "SELECT coalesce(attributes->>'licence', 'unknown'), count(*) FROM nodes WHERE kind = 'image' "
        "GROUP BY ALL ORDER BY ALL",
    }
    counts: dict[str, dict[str, int]] = {
        name: {str(key): count for key, count in tables.database.execute(query).fetchall()}
        for name, query in counted.items()
    }
    by_name = {each.name: counts["relations"].get(str(relation_id(each.name)), 0) for each in RELATIONS}
    families: dict[str, int] = {}
    for each in RELATIONS:
        families[each.family] = families.get(each.family, 0) + by_name[each.name]
    hashes = {str(each.relative_to(made)): _hash(each) for each in sorted(made.rglob("*")) if each.is_file()}
    return {
        "format": FORMAT,
        "nodes": sum(counts["kinds"].values()),
        "edges": sum(by_name.values()),
        "kinds": counts["kinds"],
        "families": families,
        "relations": by_name,
        "splits": {"relations": list(parts.split_relations), "seed": parts.seed, "edges": counts["splits"]},
        "sources": counts["sources"],
        "licences": counts["licences"],
        "encoder": dict(parts.encoder) if parts.encoder else None,
        "hashes": hashes,
        "digest": hashlib.sha256(_json(hashes).encode()).hexdigest(),
        **parts.facts,
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
