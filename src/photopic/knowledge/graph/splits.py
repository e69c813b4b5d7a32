"""Parting the edges of a relation into training, validation and test so that no test edge is answered by a variant of its head.

All edges of one base concept lie on one side, and so do the two directions of an edge: variants answered 22 % of the held-out
keywords of the emoji graph.
"""

from __future__ import annotations

from collections.abc import Sequence

from photopic.knowledge.graph.schema import RELATIONS, relation_id
from photopic.knowledge.graph.tables import Construction

FEWEST = 2  # edges of a relation in a split, below which nothing can be measured


def split_edges(
    made: Construction, relations: Sequence[str] = ("mentions",), valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> list[str]:
    """Make the table ``splits``: one row an edge, in the order of the edges.

    Args:
        made: Tables that are closed.
        relations: Names of the relations whose edges are parted; all others are for training.
        valid: Share of the base concepts for validation.
        test: Share of the base concepts for test.
        seed: Chooses which.

    Returns:
        One line for each relation that has too few edges to part; those stay in training.
    """
    numbers = [relation_id(name) for name in relations]
    made.database.execute(
        f"""
        CREATE TABLE splits AS
        WITH based AS (SELECT id, kind, coalesce(attributes->>'base', kind || ' ' || key) AS base FROM nodes),
        owned AS (
            -- between two of one kind either may be the head of the other direction: the smaller name decides for both
            SELECT e.rowid AS place, e.head, e.relation, e.tail,
                CASE WHEN h.kind = t.kind THEN least(h.base, t.base) ELSE h.base END AS owner
            FROM edges e JOIN based h ON h.id = e.head JOIN based t ON t.id = e.tail
        ),
        drawn AS (SELECT *, ('0x' || substr(md5(owner || ' ' || {seed}), 1, 8))::UBIGINT / 4294967296.0 AS chance FROM owned)
        SELECT head, relation, tail, CASE
            WHEN NOT list_contains(?::INTEGER[], relation) THEN 'train'
            WHEN chance < {test} THEN 'test' WHEN chance < {test + valid} THEN 'valid' ELSE 'train' END AS split
        FROM drawn ORDER BY place
        """,
        [numbers],
    )
    return [_too_few(made, number) for number in numbers if _smallest(made, number) < FEWEST]


def _smallest(made: Construction, relation: int) -> int:
    """How many edges of a relation the smallest split has."""
    found = made.database.execute(
        "SELECT count(*) FROM splits WHERE relation = ? GROUP BY split", [relation]
    ).fetchall()
    return min((count for (count,) in found), default=0) if len(found) == 3 else 0


def _too_few(made: Construction, relation: int) -> str:
    made.database.execute("UPDATE splits SET split = 'train' WHERE relation = ?", [relation])
    return (
        f"splits: expected {FEWEST} or more edges of {RELATIONS[relation].name!r} in train, valid and test, found fewer; all of "
        "them stay in train"
    )
