"""Small knowledge graphs, made of the lines of extractors."""

from __future__ import annotations

from pathlib import Path

from photopic.core.events import finished
from photopic.data import emoji_world
from photopic.knowledge.graph.assemble import Assembly, assemble
from photopic.knowledge.graph.extractors import emoji_concepts
from photopic.knowledge.graph.graph import Graph


def emoji_lines() -> list[str]:
    """What the concept table says, a line a concept."""
    return [
        emoji_concepts.concept_found(each).line("emoji_concepts/1", str(each.index)) for each in emoji_world.concepts()
    ]


def assembled(lines: list[str], folder: Path, **settings: object) -> Graph:
    """A graph of lines."""
    folder.mkdir(parents=True)
    (folder / "lines.jsonl").write_text("\n".join(lines))
    finished(assemble(Assembly([folder / "lines.jsonl"], **settings), folder))  # type: ignore[arg-type]
    return Graph(folder)
