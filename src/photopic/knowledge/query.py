"""Ask a knowledge graph: what stands around a word, with the family, weight and source of every edge, or anything in SQL.

A neighbourhood is read from the index beside the tables, so its cost is that of its edges and not of the graph's. SQL runs in
DuckDB over the Parquet files and can change nothing. Part of the protocol of UKnow (arXiv:2302.06891). Claim:
``uknow.query_seconds`` of benchmarks/knowledge/graph_building.py.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from annotated_types import Ge, Le

from photopic.core.config import Existing, Flags
from photopic.core.digests import PLAIN
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Table, Text, View
from photopic.knowledge.graph.graph import Graph, GraphNode
from photopic.knowledge.graph.sql import select

NEAR = 2_000  # texts that a word without a node is compared with


def query_view(report: Report) -> View:
    """The edges, nearest first, and the pictures with their licences; or the rows of an SQL query."""
    if "sql" in report.values:
        header = list(report.values["columns"])
        rows = [[row[name] for name in header] for row in report.rows]
        return View(
            "Rows of a graph", [Section("", [Table(header, rows)])], f"{len(rows):,} rows: {report.values['sql']}"
        )
    edges = [
        [row["hop"], row["head"], row["relation"], row["tail"], row["family"], round(row["weight"], 3), row["source"]]
        for row in report.rows
    ]
    pictures = [
        [each["text"], ", ".join(each["uris"]), each["licence"]]
        for each in report.values["nodes"]
        if each["kind"] == "image"
    ]
    blocks: list[Any] = [Table(["hop", "from", "relation", "to", "family", "weight", "source"], edges)]
    blocks += [Table(["picture", "lies at", "licence"], pictures)] if pictures else [Text("No pictures among them.")]
    shown, total = len(report.rows), report.values["edges"]
    lead = f"{total:,} edges" + (f", of which the nearest {shown:,}" if shown < total else "")
    return View(f"Around {report.values['word']}", [Section("", blocks)], lead)


@method(
    paper="arXiv:2302.06891",
    command="knowledge query",
    page=False,
    view=query_view,
    examples=(
        "Example: photopic knowledge query my.graph panda --hops 2",
        "SQL: photopic knowledge query my.graph --sql 'SELECT kind, count(*) FROM nodes GROUP BY kind'",
    ),
)
def query(
    graph: Annotated[str, Flags("GRAPH"), Existing()],
    word: Annotated[str, Flags("WORD")] = "",
    *,
    hops: Annotated[int, Ge(1), Le(6)] = 1,
    limit: Annotated[int, Ge(1)] = 200,
    sql: str | None = None,
) -> Steps[Report]:
    """Show what stands around a word in a knowledge graph, or the rows of an SQL query.

    Args:
        graph: Folder of the graph, as knowledge build writes it.
        word: What to begin at: a text, word, concept, fact or picture (as the graph calls it), whatever its capitals.
        hops: Steps from there, whatever the direction of an edge.
        limit: Edges or rows that are shown, the nearest and heaviest first.
        sql: One SELECT over the tables nodes, edges, splits and relations in place of a word; nothing can be changed.

    Returns:
        One row an edge, or a row of the query. A picture whose licence nobody said has the licence unknown.

    Raises:
        DataError: If there is no graph, no node of that text, or the SQL is not one SELECT that can be run.

    Example:
        >>> query("my.graph", "panda", hops=2).rows[0]["family"]  # doctest: +SKIP
        'T_in'
    """
    opened = Graph(graph)
    if (sql is None) == (not word):
        raise DataError("knowledge query: expected a word or --sql, found both or none; give one of them")
    yield Event("asking")
    if sql is not None:
        columns, rows = select(opened.folder, sql, limit)
        named = tuple(dict(zip(columns, map(_value, row), strict=True)) for row in rows)
        return Report("rows", {"sql": sql, "columns": columns}, named)
    found = opened.find(word)
    if not found:
        raise DataError(f"{graph}: expected a node called {word!r}, found none{_near(opened, word)}")
    return _around(opened, word, found, hops, limit)


def _around(graph: Graph, word: str, start: list[int], hops: int, limit: int) -> Report:
    rows, hop = graph.neighbourhood(start, hops)
    order = graph.nearest(rows, hop, limit)
    edges = graph.edges(rows[order])
    ends = {number for edge in edges for number in (edge["head"], edge["tail"])} | set(start[:limit])
    nodes = {number: graph.node(number) for number in sorted(ends)}
    listed = tuple(
        {
            "hop": int(hop[place]),
            **edge,
            "head": nodes[edge["head"]].text,
            "tail": nodes[edge["tail"]].text,
            "head_id": edge["head"],
            "tail_id": edge["tail"],
        }
        for place, edge in zip(order, edges, strict=True)
    )
    values = {"word": word, "hops": hops, "edges": len(rows), "nodes": [_node(each) for each in nodes.values()]}
    return Report("neighbourhood", values, listed)


def _node(node: GraphNode) -> dict[str, Any]:
    attributes: Mapping[str, Any] = node.attributes
    found = {"id": node.id, "kind": node.kind, "key": node.key, "text": node.text, "uris": list(node.uris)}
    return found | ({"licence": attributes.get("licence", "unknown")} if node.kind == "image" else {})


def _near(graph: Graph, word: str) -> str:
    """``; did you mean ...?`` among the texts beside where the word would stand."""
    near = get_close_matches(word.casefold(), graph.names_near(word, NEAR), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else "; look for one with --sql"


def _value(value: Any) -> Any:
    """A value of a row as JSON has it."""
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value if isinstance(value, PLAIN) else str(value)
