"""The folder of a graph as arrays, and graphs that do not hold together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.data.knowledge_graph import read_knowledge_graph
from tests.tiny_graphs import assembled, emoji_lines
from tests.tiny_link_graph import tiny_link_graph


def test_a_built_graph_is_read_whole(tmp_path: Path) -> None:
    graph = assembled(emoji_lines()[:150], tmp_path / "emoji.graph")
    found = read_knowledge_graph(tmp_path / "emoji.graph")
    for part in ("train", "valid", "test", None):
        expected = graph.triples(part)
        mine = found.triples if part is None else found.triples[found.part == ("train", "valid", "test").index(part)]
        for end in ("head", "relation", "tail"):
            assert np.array_equal(getattr(expected, end), getattr(mine, end)), (part, end)
    assert [found.kinds[each] for each in found.kind[::100]] == [
        graph.node(each).kind for each in range(0, len(graph), 100)
    ]
    assert found.texts[777] == graph.node(777).text
    assert found.uris[int(found.of_kind("image")[5])] == graph.node(int(found.of_kind("image")[5])).uris[0]
    bases = graph.bases()
    assert (
        len(set(zip(bases.tolist(), found.bases.tolist(), strict=True)))
        == len(set(bases.tolist()))
        == len(set(found.bases.tolist()))
    )


def test_a_folder_without_a_graph_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the folder of a graph, found none"):
        read_knowledge_graph(tmp_path)
    assembled(emoji_lines()[:20], tmp_path / "g")
    index = tmp_path / "g" / "index.safetensors"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(DataError, match="build the graph again"):
        read_knowledge_graph(tmp_path / "g")


def test_edges_and_features_have_to_fit_the_nodes() -> None:
    graph = tiny_link_graph()
    with pytest.raises(DataError, match=f"edges: expected nodes from 0 to {graph.nodes - 1}"):
        graph.with_triples(replace(graph.triples, head=graph.triples.head + 1), graph.part)
    with pytest.raises(DataError, match="edges: expected relations below 5"):
        graph.with_triples(graph.triples.reversed(5), graph.part)
    with pytest.raises(DataError, match="features of text: expected one row for each of 24 nodes, found 3"):
        replace(graph, features={"text": np.ones((3, 4), np.float16)})


def test_the_digest_tells_graphs_apart() -> None:
    graph = tiny_link_graph()
    assert graph.digest() == tiny_link_graph().digest()
    assert graph.digest() != replace(graph, part=1 - np.minimum(graph.part, 1)).digest()
