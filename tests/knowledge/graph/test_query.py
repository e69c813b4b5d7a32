"""Asking a graph: every edge around a word with its family, weight and source, SQL that changes nothing, and exports."""

from __future__ import annotations

import json
from pathlib import Path

import networkx
import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.knowledge.export import export
from photopic.knowledge.graph.graph import Graph
from photopic.knowledge.graph.networks import as_network
from photopic.knowledge.graph.records import Edge, Found, Node
from photopic.knowledge.graph.schema import RELATIONS
from photopic.knowledge.query import query, query_view
from photopic.report.html import page
from tests.tiny_graphs import assembled


def around(graph: Graph, start: int, hops: int) -> dict[int, int]:
    """Rows by the step that meets them, edge by edge."""
    triples, met, reached = graph.triples(), dict[int, int](), {start}
    for hop in range(1, hops + 1):
        rows = [
            row
            for row, ends in enumerate(zip(triples.head.tolist(), triples.tail.tolist(), strict=True))
            if reached & set(ends) and row not in met
        ]
        met |= dict.fromkeys(rows, hop)
        reached = reached | {int(end) for row in rows for end in (triples.head[row], triples.tail[row])}
    return met


@pytest.mark.parametrize(
    ("word", "hops"), [("Panda", 1), ("panda", 2), ("food-drink/food-fruit", 2), ("noto/mango", 1)]
)
def test_a_neighbourhood_is_every_edge_that_a_search_edge_by_edge_meets(
    word: str, hops: int, emoji_graph: Graph
) -> None:
    start = emoji_graph.find(word)
    assert len(start) == 1
    rows, hop = emoji_graph.neighbourhood(start, hops)
    assert dict(zip(rows.tolist(), hop.tolist(), strict=True)) == around(emoji_graph, start[0], hops)
    assert len(set(rows.tolist())) == len(rows)  # each once


def test_the_report_names_both_ends_family_weight_source_and_licence(emoji_graph: Graph) -> None:
    report = query(str(emoji_graph.folder), "PANDA", hops=2, limit=40)
    rows, _ = emoji_graph.neighbourhood(emoji_graph.find("panda"), 2)
    assert len(report.rows) == 40 < report.values["edges"] == len(rows)
    families = {each.name: each.family for each in RELATIONS}
    for row in report.rows:
        assert (
            emoji_graph.node(row["head_id"]).text == row["head"]
            and emoji_graph.node(row["tail_id"]).text == row["tail"]
        )
        assert (row["family"], row["source"], row["weight"]) == (families[row["relation"]], "emoji_concepts/1", 1.0)
    assert [row["hop"] for row in report.rows] == sorted(row["hop"] for row in report.rows)
    licences = {each["licence"] for each in report.values["nodes"] if each["kind"] == "image"}
    assert licences <= {"Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT"} and licences
    shown = page(query_view(report))
    assert "emoji_concepts/1" in shown and "T_in" in shown and "CC-BY-SA-4.0" in shown


def test_the_heaviest_edges_of_a_step_come_first(tmp_path: Path) -> None:
    pictures = [("image", name) for name in "abcd"]
    edges = [
        Edge(pictures[0], "similar", other, weight) for other, weight in zip(pictures[1:], (0.2, 0.9, 0.5), strict=True)
    ]
    graph = assembled(
        [Found(tuple(Node(*each) for each in pictures), tuple(edges)).line("x/1", "c")], tmp_path / "graph"
    )
    report = query(str(graph.folder), "a")
    assert [row["tail"] for row in report.rows] == ["c", "d", "b"]
    assert {each["licence"] for each in report.values["nodes"]} == {"unknown"}


@pytest.mark.parametrize("limit", [1, 7, 300, 524, 10_000])
def test_the_nearest_are_those_that_come_first_when_all_are_sorted(limit: int, emoji_graph: Graph) -> None:
    rows, hop = emoji_graph.neighbourhood(emoji_graph.find("panda"), 2)
    weight = emoji_graph._index["weight"]
    drawn = np.random.default_rng(0).integers(0, 3, len(weight)).astype(np.float32)  # many are equal
    emoji_graph._index["weight"] = drawn
    try:
        places = emoji_graph.nearest(rows, hop, limit)
    finally:
        emoji_graph._index["weight"] = weight
    assert places.tolist() == np.lexsort((rows, -drawn[rows], hop))[:limit].tolist()


def test_sql_reads_all_tables(emoji_graph: Graph) -> None:
    asked = """
        SELECT r.family, r.name, count(*) AS edges, max(n.text) AS head FROM edges e JOIN relations r ON r.id = e.relation
        JOIN nodes n ON n.id = e.head JOIN splits s ON s.head = e.head AND s.relation = e.relation AND s.tail = e.tail
        WHERE s.split = 'train' GROUP BY ALL ORDER BY edges DESC
    """
    report = query(str(emoji_graph.folder), sql=asked, limit=2)
    assert [(row["family"], row["name"], row["edges"]) for row in report.rows] == [
        ("IT_cross", "describes", 12_328), ("I_cross", "same thing", 10_414),
    ]  # fmt: skip
    json.dumps(
        query(
            str(emoji_graph.folder), sql="SELECT uris, 1.5::DECIMAL(4, 2) AS half, DATE '2020-01-01' FROM nodes"
        ).to_dict()
    )
    assert "Rows of a graph" in page(query_view(report))


@pytest.mark.parametrize(
    "asked",
    [
        "DROP TABLE edges", "INSERT INTO edges SELECT * FROM edges", "COPY nodes TO '{}/x.csv'", "SET threads = 2",
        "SELECT 1; SELECT 2",
        "ATTACH '{}/x.db'", "SELECT * FROM read_text('{}/../secret')", "SELECT nothing FROM nodes", "SELEC 1", "",
        "PRAGMA enable_profiling", "EXPORT DATABASE '{}/x'", "INSTALL httpfs", "EXPLAIN ANALYZE COPY nodes TO '{}/x.csv'",
    ],
)  # fmt: skip
def test_sql_changes_nothing_and_reads_no_other_file(asked: str, emoji_graph: Graph) -> None:
    (emoji_graph.folder.parent / "secret").write_text("secret")
    before = {each: each.stat().st_mtime_ns for each in emoji_graph.folder.rglob("*")}
    with pytest.raises(DataError, match=r"^sql: |expected a word or --sql") as raised:
        query(str(emoji_graph.folder), sql=asked.format(emoji_graph.folder))
    assert "\n" not in str(raised.value)
    assert before == {each: each.stat().st_mtime_ns for each in emoji_graph.folder.rglob("*")}


def test_questions_without_an_answer_are_told_in_one_line(emoji_graph: Graph, tmp_path: Path) -> None:
    folder = str(emoji_graph.folder)
    for arguments, problem in (
        ({"word": "pnda"}, "expected a node called 'pnda', found none; did you mean panda"),
        ({}, "expected a word or --sql, found both or none"),
        ({"word": "panda", "sql": "SELECT 1"}, "expected a word or --sql, found both or none"),
    ):
        with pytest.raises(DataError, match=problem):
            query(folder, **arguments)
    with pytest.raises(DataError, match=r"expected a graph with card\.json, found none"):
        query(str(tmp_path), "panda")


def test_a_damaged_index_is_refused(emoji_graph: Graph, tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 40, (emoji_graph.folder / "index.safetensors").read_bytes()[:5000]):
        (tmp_path / "card.json").write_text("{}")
        (tmp_path / "index.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="expected an index of a graph, found a damaged file"):
            Graph(tmp_path)


def test_graphml_and_networkx_hold_every_node_and_edge(tmp_path: Path) -> None:
    odd = Node("text", 'a \x01 <b> & "c"', attributes={"base": "é"})
    picture = Node("image", "aa", uris=("x.png", "y.png"))
    edges = (Edge(odd.end, "describes", picture.end), Edge(odd.end, "mentions", ("entity", "c"), 0.25))
    graph = assembled([Found((odd, picture, Node("entity", "c")), edges).line("x/1", "c")], tmp_path / "graph")
    network = as_network(graph)
    report = export(str(graph.folder), output=str(tmp_path / "g.graphml"))
    assert (report.values["nodes"], report.values["edges"]) == (3, 2)
    read = networkx.read_graphml(tmp_path / "g.graphml", node_type=int, force_multigraph=True)
    assert set(read.edges(keys=True)) == set(network.edges(keys=True))
    assert read.nodes[2]["text"] == 'a \ufffd <b> & "c"' and json.loads(read.nodes[1]["uris"]) == ["x.png", "y.png"]
    assert json.loads(read.nodes[2]["attributes"]) == network.nodes[2]["attributes"] == {"base": "é"}
    (facts,) = [data for *_, key, data in network.edges(keys=True, data=True) if key == "mentions"]
    assert facts == {"relation": "mentions", "family": "T_in", "weight": 0.25, "source": "x/1"}
    with pytest.raises(DataError, match=r"expected at most 1 edges for networkx, found 2"):
        as_network(graph, limit=1)
    with pytest.raises(DataError, match=r"expected a file that ends in \.graphml, found \.xml"):
        export(str(graph.folder), output="g.xml")


def test_the_whole_emoji_world_is_a_network(emoji_graph: Graph) -> None:
    network = as_network(emoji_graph)
    assert (len(network), network.number_of_edges()) == (15_855, 34_775)
    assert np.array_equal(sorted(head for head, _ in network.edges()), emoji_graph.triples().head)
