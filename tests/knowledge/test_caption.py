"""Captioning: the bundled model writes graphs of a folder, a vision-language model's text is repaired, what is no graph is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.scenes import Background, Placement, compose
from photopic.knowledge.bag_file import read_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject
from photopic.knowledge.caption import INSTRUCTION, bags_of, caption
from photopic.knowledge.caption_text import parse, write
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.scene_graph import compare
from photopic.models.captioner import Captioner
from tests.tiny_captioners import save_blip, tiny_captioner

PAIR = [Placement("owl", "noto", (0.26, 0.5), 0.44), Placement("guitar", "noto", (0.74, 0.5), 0.44)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenes").mkdir()
    for name, scene in (
        ("pair", compose(PAIR, Background("teal"))),
        ("one", compose(PAIR[:1], Background("white"), size=128)),
    ):
        Image.fromarray(scene.image).save(tmp_path / "scenes" / f"{name}.png")
    return tmp_path / "scenes"


def test_the_bundled_captioner_writes_a_graph_of_each_picture_in_its_pixels(folder: Path, tmp_path: Path) -> None:
    report = caption(Captioner.load("emoji-captioner", device="cpu"), str(folder), output=str(tmp_path / "a.jsonl"))
    records = list(read_bags(tmp_path / "a.jsonl"))
    assert (
        [record.image.name for record in records] == ["one.png", "pair.png"] == [row["picture"] for row in report.rows]
    )
    assert (records[0].image.width, records[0].source) == (128, "emoji-captioner")
    truth = bag_of_scene(compose(PAIR, Background("teal")))
    found = compare(records[1].bag, truth)
    assert found.located.f1 == found.relations.f1 == 1 and records[1].bag.background == truth.background
    assert records[0].bag.objects[0].box[2] > 40  # of 128 pixels


def test_a_vision_language_model_is_asked_and_its_text_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = Captioner.load(save_blip(tmp_path / "blip"), device="cpu"), []
    owl = ConceptObject("owl 1", True, "foreground", ("it sleeps",), ("white",), (256, 0, 512, 512))
    texts = [
        "Sure! " + write(BagOfConcepts("photo", "night", objects=(owl,))).replace("%%Part2", "Part2"),
        "an owl sleeps",
    ]
    monkeypatch.setattr(model, "write", lambda images, prompt, **more: asked.append(prompt) or texts)
    repaired, prose = bags_of(model, [np.zeros((32, 64, 3), np.uint8)] * 2)
    assert asked == [INSTRUCTION] and repaired.repairs
    assert repaired.bag.objects == (replace(owl, box=(32, 0, 64, 32)),)  # of a canvas of 512 pixels
    assert isinstance(prose, DataError) and "found no section" in str(prose)


def test_the_example_of_the_instruction_is_itself_a_bag() -> None:
    found = parse(INSTRUCTION)
    assert [item.name for item in found.bag.objects] == ["owl 1"] and found.bag.relations[0].predicate == "sits on"


def test_a_model_of_random_weights_that_writes_no_graph_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="scenes: expected texts of bags of concepts, found none; expected the words of a bag"
    ):
        caption(tiny_captioner(seed=3), str(folder), output=str(tmp_path / "a.jsonl"))
    assert not (tmp_path / "a.jsonl").exists()
