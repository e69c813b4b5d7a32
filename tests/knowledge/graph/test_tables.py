"""The tables of a graph: exact counts, one family an edge, the same bytes from any order, and what cannot be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.data.knowledge_graph import KINDS
from photopic.knowledge.graph.graph import Graph
from photopic.knowledge.graph.records import Edge, Found, Node
from photopic.knowledge.graph.schema import FAMILIES, RELATIONS, relation_id
from tests.tiny_graphs import assembled, emoji_lines

BEAR, PICTURE, THING, WORD = ("text", "a bear"), ("image", "aa"), ("object", "aa#1"), ("entity", "bear")
ENDS = (BEAR, PICTURE, THING, ("object", "aa#2"), WORD)


def line(*edges: Edge, nodes: tuple = ENDS, source: str = "test/1") -> str:
    return Found(tuple(Node(*end) for end in nodes), edges).line(source, "c")


def test_the_emoji_world_has_the_counts_that_the_specification_measured(emoji_graph: Graph) -> None:
    card = emoji_graph.card
    assert (card["nodes"], card["edges"], len(emoji_graph)) == (15_855, 34_775, 15_855)
    expected = {"mentions": 8_039, "describes": 12_328, "continues": 166, "same thing": 10_414, "of event": 3_828}
    assert {name: count for name, count in card["relations"].items() if count} == expected
    assert sum(card["families"].values()) == card["edges"]


def test_every_edge_has_one_family_and_ends_of_its_kinds(emoji_graph: Graph) -> None:
    triples, kinds = emoji_graph.triples(), emoji_graph.kinds()
    assert set(card := emoji_graph.card["families"]) == set(FAMILIES) and sum(card.values()) == len(triples)
    for number, relation in enumerate(RELATIONS):
        chosen = triples.relation == number
        assert {KINDS[kind] for kind in kinds[triples.head[chosen]]} <= set(relation.heads)
        assert {KINDS[kind] for kind in kinds[triples.tail[chosen]]} <= {relation.tail}
    assert np.array_equal(np.lexsort((triples.tail, triples.relation, triples.head)), np.arange(len(triples)))


def test_shuffled_and_repeated_input_writes_the_same_bytes(emoji_graph: Graph, shuffled_graph: Graph) -> None:
    assert emoji_graph.card == shuffled_graph.card  # the hashes of all files among it
    for name in emoji_graph.card["hashes"]:
        assert (emoji_graph.folder / name).read_bytes() == (shuffled_graph.folder / name).read_bytes()


def test_a_large_table_is_a_folder_of_files_with_the_same_rows(emoji_graph: Graph, tmp_path: Path) -> None:
    from photopic.knowledge.graph.tables import database, parquet_files

    parted = assembled(emoji_lines(), tmp_path / "graph", rows_per_file=10_000)
    assert len(parquet_files(parted.folder, "edges")) == 4
    rows = [
        database()
        .execute("FROM read_parquet(?)", [[str(file) for file in parquet_files(graph.folder, "edges")]])
        .fetchall()
        for graph in (emoji_graph, parted)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 34_775


def test_the_same_node_and_edge_of_two_extractors_are_one(tmp_path: Path) -> None:
    first = Found(
        (Node(*BEAR), Node(*PICTURE, uris=("b.png",), attributes={"width": 4})),
        (Edge(BEAR, "describes", PICTURE, 0.5),),
    )
    second = Found(
        (Node(*BEAR), Node(*PICTURE, uris=("a.png",), attributes={"licence": "MIT"})),
        (Edge(BEAR, "describes", PICTURE),),
    )
    graph = assembled([first.line("one/1", "c"), second.line("two/1", "d")], tmp_path / "graph")
    picture = graph.node(graph.ids_of("image")[0])
    assert picture.uris == ("a.png", "b.png") and picture.attributes == {"width": 4, "licence": "MIT"}
    (edge,) = graph.edges(graph.rows_of([picture.id]))
    assert (edge["weight"], edge["source"], edge["family"]) == (1.0, "one/1, two/1", "IT_cross")


def test_of_two_directions_one_is_stored(tmp_path: Path) -> None:
    left, right = ("object", "aa#1"), ("object", "aa#2")
    edges = (
        Edge(left, "left of", right),
        Edge(right, "right of", left),
        Edge(right, "below", left),
        Edge(left, "above", right),
    )
    graph = assembled([line(*edges)], tmp_path / "graph")
    assert [(RELATIONS[each].name) for each in graph.triples().relation] == ["left of", "above"]
    pair = (("image", "bb"), PICTURE)
    both = [Edge(*(pair[0], "same thing", pair[1])), Edge(*(pair[1], "same thing", pair[0]))]
    graph = assembled([line(*both, nodes=pair)], tmp_path / "other")
    assert [(each["head"], each["tail"]) for each in graph.edges(np.arange(len(graph.triples())))] == [(0, 1)]


@pytest.mark.parametrize(
    ("edge", "problem"),
    [
        (Edge(BEAR, "shows", PICTURE), "expected a relation of the protocol"),
        (Edge(PICTURE, "describes", BEAR), "expected ends of the kinds that the relation joins"),
        (Edge(BEAR, "mentions", ("entity", "fox")), "expected both ends among the nodes"),
        (Edge(BEAR, "continues", BEAR), "found one joined with itself"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(edge: Edge, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem) as raised:
        assembled([line(edge)], tmp_path / "graph")
    assert str(raised.value).startswith("extractor test/1: ") and "\n" not in str(raised.value)


def test_variants_of_one_concept_stay_on_one_side(emoji_graph: Graph) -> None:
    bases = emoji_graph.bases()
    sides = [set(bases[emoji_graph.triples(split, "mentions").head]) for split in ("train", "valid", "test")]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(len(emoji_graph.triples(split)) for split in ("train", "valid", "test")) == 34_775
    share = len(sides[2]) / sum(map(len, sides))
    assert 0.07 < share < 0.13
    others = emoji_graph.triples("test").relation
    assert set(others.tolist()) == {relation_id("mentions")}


def test_both_directions_between_two_of_a_kind_stay_on_one_side(tmp_path: Path) -> None:
    texts = [("text", f"t{number:02}") for number in range(40)]
    pairs = [(texts[a], texts[b]) for a in range(40) for b in range(40) if a != b]
    graph = assembled(
        [line(*(Edge(a, "continues", b) for a, b in pairs), nodes=tuple(texts))],
        tmp_path / "graph",
        split_relations=("continues",),
    )
    held = graph.triples("test")
    there = set(zip(held.head.tolist(), held.tail.tolist(), strict=True))
    assert there and all((tail, head) in there for head, tail in there)


def test_a_relation_with_too_few_edges_to_part_stays_in_training(tmp_path: Path) -> None:
    from photopic.knowledge.graph.assemble import Assembly, assemble

    (tmp_path / "lines.jsonl").write_text(line(Edge(BEAR, "mentions", WORD)))
    events = list(assemble(Assembly([tmp_path / "lines.jsonl"]), tmp_path))
    assert [each.warning for each in events if each.warning] == [
        "splits: expected 2 or more edges of 'mentions' in train, valid and test, found fewer; all of them stay in train"
    ]
    assert len(Graph(tmp_path).triples("train")) == 1
