"""``photopic knowledge build``: an encoder that is not asked for is not loaded."""

from __future__ import annotations

from pathlib import Path

from photopic.knowledge.graph.graph import Graph
from tests.cli.conftest import run


def test_without_an_encoder_nothing_is_encoded(tmp_path: Path) -> None:
    run("knowledge", "build", "emoji-scenes:3", "-o", tmp_path / "my.graph")
    graph = Graph(tmp_path / "my.graph")
    assert graph.card["encoder"] is None and not graph.features
