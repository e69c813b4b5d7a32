"""``photopic generate --graph``: a bag of concepts is drawn, edits in their regions; refusals are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.data.pictures import read_settings
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject
from photopic.knowledge.bag_record import BagRecord
from tests.cli.conftest import refusal, run


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    pair = (ConceptObject("<mine> bear", box=(0, 0, 30, 60)), ConceptObject("cat 1", box=(34, 0, 64, 60)))
    write_bags(tmp_path / "graph.jsonl", [BagRecord(BagOfConcepts(background=("red background",), objects=pair))])
    return tmp_path / "graph.jsonl"


def draw(
    graph: Path, model: Path, out: Path, *more: object, words: tuple[str, ...] = ("generate", "--graph")
) -> np.ndarray:
    run(*words, graph, "-n", 1, "-o", out, "--steps", 2, "--model", model, *more)
    return np.array(Image.open(out / "0001.png"))


def test_a_graph_is_drawn_with_edits_in_their_regions(tmp_path: Path, model: Path, edit: Path, graph: Path) -> None:
    everywhere = draw(graph, model, tmp_path / "all", "--with", edit)
    inside = draw(graph, model, tmp_path / "in", "--with", edit, "--in-region")
    assert (everywhere != inside).any()
    settings = read_settings(tmp_path / "in" / "0001.png")
    assert settings["prompt"] == "a <mine> bear and a cat on a red background"
    assert [each["words"] for each in settings["graph"]["regions"]] == ["<mine> bear", "cat"]
    assert settings["graph"]["in_region"] is True and (tmp_path / "in" / "layout-0001-0001.png").is_file()

    same = draw(graph, model, tmp_path / "draw", "--with", edit, "--in-region", words=("knowledge", "draw"))
    assert (same == inside).all()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("a bear", "--graph", "graph.jsonl"), "--graph: says what to draw and where"),
        ((), "prompt: expected words that say what to draw, found none; write them, or give --graph"),
        (
            ("--graph", "graph.jsonl", "--own-prompts"),
            "take the layout from the prompt, found --layout or --graph besides",
        ),
    ],
)
def test_words_that_do_not_go_together(words, reason: str, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(graph.parent)
    assert reason in refusal("generate", *words)
