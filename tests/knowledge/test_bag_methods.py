"""Describing, checking, comparing, asking and showing bags of concepts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.core.view import Gallery
from photopic.data.picture_set import PictureSet
from photopic.knowledge._answers import by_words, pointed, sentences_of
from photopic.knowledge.ask import answers_to, ask
from photopic.knowledge.bag_file import read_bags, write_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.bag_record import BagRecord, ImageFile
from photopic.knowledge.caption_text import parse
from photopic.knowledge.check import check, check_record
from photopic.knowledge.compare_graphs import compare_graphs
from photopic.knowledge.describe import DescribeConfig, describe, scene_records
from photopic.knowledge.show import bags_view, overlay, show
from photopic.report.html import page
from tests.cli.conftest import refusal, run
from tests.knowledge.captions import HARBOUR, MARKET, POSITIONS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six scenes' pictures and their bags, written by the command."""
    folder = tmp_path_factory.mktemp("scenes")
    said = run(
        "knowledge", "describe", "emoji-scenes:6", "--pictures-to", folder / "pictures", "-o", folder / "truth.jsonl"
    )
    assert f"photopic knowledge show {folder / 'truth.jsonl'}" in said.stdout.replace("\n", "")
    return folder


def test_scenes_are_described_exactly_and_again_the_same(scenes: Path, tmp_path: Path) -> None:
    records = list(read_bags(scenes / "truth.jsonl"))
    assert records == [record for _, record in scene_records(6)]
    for record in records:
        assert record.image is not None and (scenes / "pictures" / record.image.name).exists()
        for item in record.bag.objects:
            mask = record.masks[item.name].mask
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert item.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    describe(PictureSet("emoji-scenes:6"), output=str(tmp_path / "again.jsonl"))
    assert (tmp_path / "again.jsonl").read_bytes() == (scenes / "truth.jsonl").read_bytes()
    with pytest.raises(FileExistsError):
        describe(PictureSet("emoji-scenes:6"), output=str(tmp_path / "again.jsonl"))
    other = describe(PictureSet("emoji-scenes:6"), output=str(tmp_path / "other.jsonl"), config=DescribeConfig(seed=1))
    assert other.values["described"] == 6
    assert (tmp_path / "other.jsonl").read_bytes() != (scenes / "truth.jsonl").read_bytes()


def test_a_folder_is_described_by_its_texts_and_what_has_none_is_told(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (256, 128)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text(HARBOUR + POSITIONS)
    (tmp_path / "b.txt").write_text("An owl sleeps.")
    report = describe(PictureSet(str(tmp_path)), output=str(tmp_path / "bags.jsonl"))
    assert [row["problem"][:30] for row in report.rows] == [
        "",
        "expected the text of a bag of ",
        "no text lies beside the picture"[:30],
    ]
    (record,) = read_bags(tmp_path / "bags.jsonl")
    assert record.bag.objects[0].box == (30, 50, 90, 115)  # from a canvas of 512 x 512
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match="expected texts of bags of concepts beside the pictures, found none; no text"):
        describe(PictureSet(str(tmp_path)), output=str(tmp_path / "none.jsonl"))


# --- check


def test_a_file_of_texts_is_checked_record_by_record(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text(f"{MARKET}\n{HARBOUR}\nSome words.\n")
    verdict = check(str(tmp_path / "captions.txt"))
    assert verdict.accepted and verdict.evidence["records"] == 2 and verdict.evidence["whole"] == 1
    assert verdict.evidence["objects"] == 17 and verdict.evidence["repairs"] == {
        "extra field": 1,
        "plural": 1,
        "unread": 1,
    }
    assert [each["record"] for each in verdict.evidence["told"]] == ["text 2"]
    assert not check(str(tmp_path / "captions.txt"), strict=True).accepted


def test_the_published_data_is_checked_unchanged_and_what_is_wrong_leaves_with_status_1(tmp_path: Path) -> None:
    good = {"path": "a.jpg", "caption": HARBOUR + POSITIONS}
    (tmp_path / "test_dataset.jsonl").write_text(
        json.dumps(good) + "\n" + json.dumps(good | {"caption": "An owl."}) + "\n{\n"
    )
    said = run("knowledge", "check", tmp_path / "test_dataset.jsonl", "--json", status=1)
    evidence = json.loads(said.stdout)["evidence"]
    assert (evidence["records"], evidence["readable"], evidence["objects"]) == (3, 1, 7)
    assert [each["record"] for each in evidence["told"]] == ["line 1", "line 2", "line 3"]
    assert "found none of it" not in said.stdout
    (tmp_path / "empty.txt").write_text("\n")
    assert "expected texts of bags of concepts, found nothing in it" in refusal(
        "knowledge", "check", tmp_path / "empty.txt"
    )


def test_a_changed_picture_and_odd_relations_are_told(scenes: Path, tmp_path: Path) -> None:
    records = list(read_bags(scenes / "truth.jsonl"))
    assert check(str(scenes / "truth.jsonl"), pictures=str(scenes / "pictures")).accepted
    changed = replace(records[0], image=replace(records[0].image, sha256="0" * 64))
    write_bags(tmp_path / "changed.jsonl", [changed, *records[1:]])
    verdict = check(str(tmp_path / "changed.jsonl"), pictures=str(scenes / "pictures"))
    assert not verdict.accepted and "line 1" in verdict.reason and "sha256 000000000000" in verdict.reason
    lines = "<owl 1> [near] <owl 1>. <owl 1> [near] <tree>. <tree> [far from] <owl 1>."
    text = f"%%Part2: List of objects%%<owl 1> (Living; both; a; )%%Part3: Relationships%%{lines}"
    assert check_record(text).evidence["notes"] == (
        "a relation of 'owl 1' to itself",
        "owl 1 and tree are related 2 times",
    )


# --- measure graph


def test_predicted_graphs_are_measured_against_the_truth(scenes: Path, tmp_path: Path) -> None:
    truth = list(read_bags(scenes / "truth.jsonl"))
    perfect = compare_graphs(str(scenes / "truth.jsonl"), str(scenes / "truth.jsonl"))
    assert all(interval == (1.0, 1.0, 1.0) for interval in perfect.values["f1"].values())
    assert perfect.values["published"]["precision"] == 1.0 and perfect.values["shuffled"]["objects"] < 0.5
    predicted = [replace(record, bag=BagOfConcepts(objects=record.bag.objects[:1]), masks={}) for record in truth[:4]]
    write_bags(tmp_path / "predicted.jsonl", predicted[::-1])
    with (tmp_path / "predicted.jsonl").open("a") as file:
        file.write("{\n")
    report = compare_graphs(str(tmp_path / "predicted.jsonl"), str(scenes / "truth.jsonl"))
    values: Mapping[str, Any] = report.values
    assert (values["predicted"], values["read"], values["pictures"]) == (5, 4, 6)
    recall = [1 / len(record.bag.objects) for record in truth[:4]] + [0, 0]
    assert values["macro"]["objects"]["recall"] == pytest.approx(np.mean(recall))
    assert values["published"]["left_out"] == 2 and values["published"]["recall"] == pytest.approx(np.mean(recall[:4]))
    assert [row["problem"] for row in report.rows] == [""] * 4 + ["nothing was predicted"] * 2
    run("measure", "graph", tmp_path / "predicted.jsonl", scenes / "truth.jsonl", "-o", tmp_path / "graph.html")
    assert "Pictures, worst first" in (tmp_path / "graph.html").read_text()


def test_graphs_of_other_pictures_are_not_compared(scenes: Path, tmp_path: Path) -> None:
    write_bags(tmp_path / "other.jsonl", [BagRecord(BagOfConcepts(), ImageFile("other.png"))])
    with pytest.raises(DataError, match=r"other.png: expected a picture of .*truth.jsonl, found none"):
        compare_graphs(str(tmp_path / "other.jsonl"), str(scenes / "truth.jsonl"))
    write_bags(tmp_path / "twice.jsonl", [BagRecord(BagOfConcepts(), ImageFile("other.png"))] * 2)
    with pytest.raises(DataError, match=r"record 2: expected the name of a picture of its own, found 'other.png'"):
        compare_graphs(str(tmp_path / "twice.jsonl"), str(scenes / "truth.jsonl"))


# --- questions


PAIR = BagOfConcepts(
    theme="two birds",
    objects=(
        ConceptObject("owl 1", description=("it sleeps",), colour=("white feathers",), box=(0, 0, 20, 20)),
        ConceptObject("duck 1", description=("it swims",), colour=("brown feathers",), box=(40, 0, 60, 20)),
        ConceptObject("pond 1", box=(30, 10, 64, 30)),
    ),
    relations=(Relation("duck 1", "swims on", "pond 1"), Relation("owl 1", "left of", "duck 1")),
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("who swims on the pond?", "duck 1 swims on pond 1"),
        ("what is left of the duck?", "owl 1 left of duck 1"),
        ("which feathers are white?", "owl 1: white feathers"),
        ("birds", "two birds"),
    ],
)
def test_a_question_is_answered_by_what_the_bag_says(question: str, answer: str) -> None:
    assert answers_to(BagRecord(PAIR), question)[0] == answer


def test_a_region_tells_of_what_overlaps_it_and_else_of_everything() -> None:
    inside = [each.text for each in sentences_of(PAIR, (42, 0, 62, 20))]
    assert inside == [
        "duck 1",
        "duck 1: it swims",
        "duck 1: brown feathers",
        "duck 1 swims on pond 1",
        "owl 1 left of duck 1",
    ]
    assert sentences_of(PAIR, (0, 50, 9, 60)) == sentences_of(PAIR)


def test_pointing_weighs_likeness_by_overlap() -> None:
    candidates = [(1, 0, 21, 20), (41, 0, 61, 20), (0, 80, 9, 90)]
    assert pointed(PAIR, candidates, "the white owl", by_words).argmax() == 0
    assert pointed(PAIR, candidates, "a brown duck", by_words).argmax() == 1
    alike = lambda question, texts: np.array([1.0, 0.5, 0.0])  # noqa: E731
    owl, duck, nothing = pointed(PAIR, candidates, "x", alike)
    assert owl == 1.0 and nothing == -1.0
    shares = 20 * 19 / (20 * 21), (61 - 41) * 10 / (20 * 20 + 34 * 20 - 200)  # of duck and of pond with the second box
    assert duck == pytest.approx((shares[0] * 0.5 + shares[1] * 0.0) / sum(shares))


def test_ask_answers_from_a_file(scenes: Path, tmp_path: Path) -> None:
    write_bags(tmp_path / "pair.jsonl", [BagRecord(PAIR, ImageFile("a.png", width=64, height=64))])
    said = run("knowledge", "ask", tmp_path / "pair.jsonl", "what is left of the duck?", "--answers", "1").stdout
    assert "owl 1 left of duck 1" in said
    boxed = ask(str(tmp_path / "pair.jsonl"), "the duck", boxes=("0,0,20,20", "40,0,60,20"))
    assert boxed.rows[0]["answer"] == "40,0,60,20"
    by_encoder = ask(str(tmp_path / "pair.jsonl"), "duck", similarity="emoji-clip-cnn", answers=1)
    assert "duck 1" in by_encoder.rows[0]["answer"]
    assert "expected a record of b.png, found none" in refusal(
        "knowledge", "ask", tmp_path / "pair.jsonl", "x", "--picture", "b.png"
    )
    assert "expected a box as left,top,right,bottom" in refusal(
        "knowledge", "ask", tmp_path / "pair.jsonl", "x", "--region", "1,2"
    )
    assert "left < right" in refusal("knowledge", "ask", tmp_path / "pair.jsonl", "x", "--region", "5,2,5,9")


# --- show


def test_a_page_shows_each_picture_with_its_boxes(scenes: Path, tmp_path: Path) -> None:
    run("knowledge", "show", scenes / "truth.jsonl", "--pictures", scenes / "pictures", "-o", tmp_path / "scenes.html")
    text = (tmp_path / "scenes.html").read_text()
    assert text.count("<img") == 6 and "scene-00005.png" in text and "%%Part3: Relationships%%" in text
    one = show(str(scenes / "truth.jsonl"), pictures=str(scenes / "pictures"), picture="scene-00002.png")
    assert [row["picture"] for row in one.rows] == ["scene-00002.png"]
    assert not any(
        isinstance(block, Gallery) for block in bags_view(show(str(scenes / "truth.jsonl"))).sections[0].blocks
    )
    with pytest.raises(DataError, match=r"expected a record of none.png"):
        show(str(scenes / "truth.jsonl"), picture="none.png")


def test_the_boxes_lie_on_the_edges_of_the_objects() -> None:
    record = BagRecord(BagOfConcepts(objects=(ConceptObject("owl 1", box=(8, 16, 24, 32)),)))
    drawn = overlay(record, np.full((64, 64, 3), 7, np.uint8))  # 6 pixels for one
    changed = (drawn != 7).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (rows[0], columns[0]) == (16 * 6, 8 * 6) and changed[32 * 6 - 1, 8 * 6] and not changed[32 * 6, 8 * 6]


def test_what_a_text_says_is_escaped_on_the_page(tmp_path: Path) -> None:
    bag = parse("%%Part2: List of objects%%<owl 1> (Living; both; it says \\<script\\>alert(1)\\</script\\>; )").bag
    write_bags(tmp_path / "x.jsonl", [BagRecord(bag, ImageFile("<b>.png"))])
    text = page(bags_view(show(str(tmp_path / "x.jsonl"))))
    assert "<script>alert" not in text and "<b>.png" not in text
