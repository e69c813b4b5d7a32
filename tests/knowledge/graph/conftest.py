"""The emoji world's graph, made once."""

from __future__ import annotations

import random

import pytest

from photopic.knowledge.graph.graph import Graph
from tests.tiny_graphs import assembled, emoji_lines


@pytest.fixture(scope="session")
def emoji_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The concept table as a graph."""
    return assembled(emoji_lines(), tmp_path_factory.mktemp("emoji") / "graph")


@pytest.fixture(scope="session")
def shuffled_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The same from lines in another order, some of them twice."""
    lines = emoji_lines()
    random.Random(1).shuffle(lines)
    return assembled([*lines, *lines[:300]], tmp_path_factory.mktemp("shuffled") / "graph")
