"""Building a graph: what folders give, the same tables after a kill, by two processes and by way of changes, and bad input."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photopic.core.errors import DataError
from photopic.core.runs import RunInUseError
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.bag_record import BagRecord, ImageFile
from photopic.knowledge.build import BuildConfig, build
from photopic.knowledge.graph.graph import Graph
from photopic.knowledge.graph.schema import RELATIONS
from tests.processes import started
from tests.tiny_encoders import tiny_dual_encoder
from tests.train.diffusion.test_training import be_one_of_two, both_at_work

OWN = """
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.records import Edge, Found, Node

def wide():
    fact = Node("fact", "wide")
    return Extractor(
        "shape", 2, lambda thing: thing.key, lambda thing: Found((fact,), (Edge(("image", thing.key), "of event", fact.end),))
    )
"""
SCENES = "emoji-scenes:150"  # three blocks of things


def painted(path: Path, colour: str, caption: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), colour).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures in three folders, one of them under two names, three with captions, and files that are none."""
    folder = tmp_path / "pictures"
    painted(folder / "bear/1.png", "brown", "A brown bear")
    painted(folder / "bear/2.png", "brown")
    Image.new("RGB", (9, 7), "brown").save(folder / "bear/2.bmp")
    painted(folder / "fox/1.png", "red", "a  red fox")
    painted(folder / "grey.png", "grey", "a red fox")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "notes.md").write_text("no picture")
    return folder


def tables(folder: Path) -> dict[str, bytes]:
    """The bytes of all that a graph consists of."""
    card = json.loads((folder / "card.json").read_text())
    return {name: (folder / name).read_bytes() for name in (*card["hashes"], "card.json")}


def facts(graph: Graph) -> set[tuple[str, str, str]]:
    edges = graph.edges(np.arange(len(graph.triples())))
    return {(graph.node(each["head"]).text, each["relation"], graph.node(each["tail"]).text) for each in edges}


def warnings_of(folder: Path, output: Path, **settings: Any) -> list[str]:
    return [each.warning for each in build.events(str(folder), output=str(output), **settings) if each.warning]


def test_a_folder_gives_captions_words_classes_and_one_node_for_each_picture(pictures: Path, tmp_path: Path) -> None:
    report = build(str(pictures), output=str(tmp_path / "graph"))
    graph = Graph(tmp_path / "graph")
    assert report.values["kinds"] == {"entity": 4, "fact": 2, "image": 3, "text": 2}
    assert facts(graph) == {
        ("A brown bear", "describes", "bear/2.png"), ("A brown bear", "mentions", "brown"), ("A brown bear", "mentions", "bear"),
        ("a red fox", "describes", "fox/1.png"), ("a red fox", "describes", "grey.png"),
        ("a red fox", "mentions", "red"), ("a red fox", "mentions", "fox"),
        ("bear/2.png", "of event", "bear"), ("fox/1.png", "of event", "fox"),
    }  # fmt: skip
    brown = graph.node(graph.find("bear/2.png")[0])
    assert brown.uris == ("bear/1.png", "bear/2.bmp", "bear/2.png") and brown.attributes == {"width": 9, "height": 7}
    assert graph.find("bear/1.png") == graph.find("BEAR/2.bmp") == [brown.id]
    assert report.values["licences"] == {"unknown": 3}
    (unread,) = report.values["unreadable"]
    assert unread["uri"] == "broken.png" and unread["problem"].startswith("broken.png: expected a readable image")


def test_bags_beside_pictures_give_their_objects(pictures: Path, tmp_path: Path) -> None:
    objects = (ConceptObject("bear 1", box=(0, 0, 4, 7)), ConceptObject("fox 1", colour=("red",)))
    relations = (
        Relation("bear 1", "left of", "fox 1"),
        Relation("bear 1", "looks at", "fox 1"),
        Relation("fox 1", "above", "tree"),
    )
    bag = BagOfConcepts(objects=objects, relations=relations)
    content = hashlib.sha256((pictures / "bear/2.png").read_bytes()).hexdigest()
    records = [
        BagRecord(bag, ImageFile("2.png", content, 9, 7), "a model"),
        BagRecord(bag, ImageFile("1.png", "0" * 64)),
    ]
    write_bags(pictures / "bear/bags.jsonl", records)
    with (pictures / "bear/bags.jsonl").open("a") as file:
        file.write("{}\n")
    report = build(str(pictures), output=str(tmp_path / "graph"))
    graph = Graph(tmp_path / "graph")
    found = facts(graph)
    assert {("bear/2.png", "contains", "bear"), ("bear/2.png", "contains", "fox"), ("bear", "left of", "fox")} <= found
    assert report.values["relations"]["above"] == 0 and report.values["sources"]["bags/1"] == 3
    (bear,) = [graph.node(each) for each in graph.find("bear") if graph.node(each).kind == "object"]
    assert bear.attributes == {"annotator": "a model", "box": [0, 0, 4, 7]}
    problems = {each["uri"]: each["problem"] for each in report.values["unreadable"]}
    assert problems["bear/bags.jsonl"].startswith("bear/bags.jsonl: line 3: expected")
    assert problems["bear/1.png"].startswith(
        "bear/1.png: expected the picture that its bag was made of, with sha256 000000000000"
    )


def test_what_is_left_out_is_said(pictures: Path, tmp_path: Path) -> None:
    for caption in pictures.rglob("*.txt"):
        caption.unlink()
    found = warnings_of(pictures, tmp_path / "graph")
    assert found[0].startswith("not read: broken.png: expected a readable image")
    assert found[1] == "no picture has a caption: only what pictures alone say is in the graph"
    assert found[2] == "1 pictures lie under several names, such as bear/1.png and bear/2.bmp: one node each"


def test_a_licence_is_the_files_own_or_the_users(pictures: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8298] = "CC-BY-4.0"
    Image.new("RGB", (9, 7), "blue").save(pictures / "blue.png", exif=exif)
    report = build(str(pictures), output=str(tmp_path / "graph"))
    assert report.values["licences"] == {"CC-BY-4.0": 1, "unknown": 3}
    report = build(str(pictures), output=str(tmp_path / "other"), config=BuildConfig(licence="MIT"))
    assert report.values["licences"] == {"CC-BY-4.0": 1, "MIT": 3}


def test_a_caption_that_cannot_be_read_costs_no_other(pictures: Path, tmp_path: Path) -> None:
    (pictures / "bear/1.txt").write_bytes(b"\xff\xfe\xfa")
    (pictures / "bear/2.txt").write_text("a bear")
    report = build(str(pictures), output=str(tmp_path / "graph"))
    assert [each["uri"] for each in report.values["unreadable"]] == ["bear/1.png", "broken.png"]
    assert ("a bear", "mentions", "bear") in facts(Graph(tmp_path / "graph"))


def test_scenes_are_known_exactly(tmp_path: Path) -> None:
    report = build("emoji-scenes:40", output=str(tmp_path / "graph"))
    graph = Graph(tmp_path / "graph")
    from photopic.knowledge.graph.things import things_of

    things = things_of("emoji-scenes:40")
    scenes = [things.read(uri).subject for uri in things.uris()]
    assert report.values["kinds"]["object"] == sum(len(scene.placements) for scene in scenes)
    pairs = sum(len(scene.relations) for scene in scenes) // 2  # each pair is told from both sides
    assert sum(report.values["relations"][name] for name in ("left of", "right of", "above", "below")) == pairs
    assert report.values["relations"]["right of"] == report.values["relations"]["below"] == 0
    named = {graph.node(each).text for each in graph.ids_of("object")}
    assert named == {item.concept for scene in scenes for item in scene.placements}


def test_captions_that_share_an_object_are_a_chain(tmp_path: Path) -> None:
    report = build("emoji-scenes:150", output=str(tmp_path / "graph"))
    graph = Graph(tmp_path / "graph")
    shown: dict[str, set[int]] = {}
    objects = graph.triples(relation="contains")
    captions = graph.triples(relation="describes")
    texts = dict(zip(captions.tail.tolist(), captions.head.tolist(), strict=True))
    for picture, thing in zip(objects.head.tolist(), objects.tail.tolist(), strict=True):
        shown.setdefault(graph.node(thing).text, set()).add(texts[picture])
    expected = {pair for several in shown.values() for pair in zip(sorted(several)[1:], sorted(several), strict=False)}
    chained = graph.triples(relation="continues")
    assert expected == set(zip(chained.head.tolist(), chained.tail.tolist(), strict=True)) and len(expected) > 2
    assert report.values["relations"]["continues"] == len(expected)


def kill_before(connection: Connection, number: int, folder: Path) -> None:
    """In a process of its own: build, and die before so many files have come to their place."""
    put, count = os.replace, 0

    def replace(*places: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        put(*places)

    os.replace = replace
    build(SCENES, output=str(folder), encoder=tiny_dual_encoder())
    connection.send(count)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "graph"
    build(SCENES, output=str(folder), encoder=tiny_dual_encoder())
    return folder


@pytest.mark.parametrize("number", [1, 5, 11, 14, 18])  # of 18: parts, listing, tables, card
def test_a_build_that_is_killed_goes_on_to_the_same_tables(number: int, whole: Path, tmp_path: Path) -> None:
    victim, _ = started(kill_before, number, tmp_path / "graph")
    victim.join(120)
    assert victim.exitcode == -signal.SIGKILL
    with pytest.raises(
        DataError, match=r"expected a graph with card\.json, found none; make it, or go on after a kill"
    ):
        Graph(tmp_path / "graph")
    parts = len(list((tmp_path / "graph/extracted").glob("*.jsonl")))
    assert parts == min((number + 1) // 3, 3)  # what was extracted before is there
    build(SCENES, output=str(tmp_path / "graph"), encoder=tiny_dual_encoder())
    assert tables(tmp_path / "graph") == tables(whole)


@pytest.mark.parametrize("number", [13, 16, 18])  # while tables take the places of older ones
def test_a_graph_that_is_killed_half_replaced_is_refused_until_it_is_whole(
    number: int, whole: Path, tmp_path: Path
) -> None:
    build("emoji-scenes:20", output=str(tmp_path / "graph"), encoder=tiny_dual_encoder())
    victim, _ = started(kill_before, number, tmp_path / "graph")
    victim.join(120)
    with pytest.raises(
        DataError, match=r"expected a graph with card\.json, found none; make it, or go on after a kill"
    ):
        Graph(tmp_path / "graph")
    build(SCENES, output=str(tmp_path / "graph"), encoder=tiny_dual_encoder())
    assert tables(tmp_path / "graph") == tables(whole)


def build_as_one_of_two(connection: Connection, rank: int, folder: Path) -> None:
    """In a process of its own."""
    be_one_of_two(rank, connection.recv())
    build(SCENES, output=str(folder), encoder=tiny_dual_encoder())
    torch.distributed.destroy_process_group()


def test_two_processes_make_the_tables_of_one(whole: Path, tmp_path: Path) -> None:
    both_at_work(build_as_one_of_two, tmp_path / "graph")
    assert len(list((tmp_path / "graph/extracted").glob("*.jsonl"))) == 4  # two of each
    assert tables(tmp_path / "graph") == tables(whole)


def test_pictures_that_come_go_and_change_give_the_tables_of_a_new_build(pictures: Path, tmp_path: Path) -> None:
    encoder, read = tiny_dual_encoder(), []
    build(str(pictures), output=str(tmp_path / "graph"), encoder=encoder)
    painted(pictures / "fox/3.png", "orange", "two foxes")
    painted(pictures / "bear/1.png", "black")
    (pictures / "grey.png").unlink()
    (pictures / "fox/1.txt").write_text("another word")
    seen = encoder.image_features
    encoder.image_features = lambda images, **how: read.append(len(images)) or seen(images, **how)  # type: ignore[method-assign]
    build(str(pictures), output=str(tmp_path / "graph"), encoder=encoder)
    assert len(read) == 1  # one batch: of the two that are new, and filled up
    build(str(pictures), output=str(tmp_path / "new"), encoder=tiny_dual_encoder())
    assert tables(tmp_path / "graph") == tables(tmp_path / "new")


def test_similar_pictures_are_each_others_nearest_above_chance(whole: Path) -> None:
    graph = Graph(whole)
    rows = graph.features["image"].astype(np.float32)  # (150, 16)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-2)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -2)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :5]
    names = np.zeros(cosine.shape, bool)
    np.put_along_axis(names, nearest, True, axis=1)
    above = cosine > graph.card["similarity_thresholds"]["image"]
    expected = {(a, b) for a, b in zip(*np.nonzero(names & names.T & above), strict=True) if a < b}
    alike, first = graph.triples(relation="similar"), graph.ids_of("image")[0]
    found = set(zip(alike.head - first, alike.tail - first, strict=True))
    assert found == expected and len(found) > 20
    chance = np.quantile(cosine[~np.eye(150, dtype=bool)], 0.95)
    assert abs(graph.card["similarity_thresholds"]["image"] - chance) < 0.01
    (source,) = {
        graph.edges(np.arange(len(graph.triples())))[row]["source"]
        for row in np.nonzero(graph.triples().relation == 6)[0]
    }
    assert source == f"similarity/1:{tiny_dual_encoder().digest()[:12]}"


def test_an_extractor_of_ones_own_adds_its_edges(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shapes_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = BuildConfig(extractors=("pictures", "shapes_of_mine:wide"))
    report = build(str(pictures), output=str(tmp_path / "graph"), config=config)
    assert report.values["sources"] == {"shape/2": 3} and report.values["extractors"] == ["pictures/1", "shape/2"]
    assert Graph(tmp_path / "graph").find("wide")


def test_one_build_at_a_time_has_a_folder(pictures: Path, tmp_path: Path) -> None:
    from photopic.core.runs import Run

    with Run(tmp_path / "graph/extracted").held(), pytest.raises(RunInUseError):
        build(str(pictures), output=str(tmp_path / "graph"))


def test_bad_input_is_told_in_one_line(pictures: Path, tmp_path: Path) -> None:
    graph, other = tmp_path / "graph", tmp_path / "other"
    build(str(pictures), output=str(graph), encoder=tiny_dual_encoder())
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    cases: list[tuple[str, Path, dict[str, Any], str]] = [
        (
            str(pictures),
            graph,
            {"encoder": tiny_dual_encoder(seed=1)},
            r"holds features of .* asked for .*; give that encoder",
        ),
        (str(pictures), graph, {}, "holds features of .* asked for no encoder; give that encoder"),
        (str(tmp_path / "nowhere"), tmp_path / "new", {}, "expected a folder of pictures, found nothing"),
        (str(other), tmp_path / "new", {}, "expected at least one picture in it or its sub-folders, found none"),
        (str(pictures), other, {}, "expected a new folder or a graph, found a folder of something else"),
        (str(pictures), other / "mine.txt", {}, "expected a folder to write the graph into, found a file"),
        ("emoji-scenes:none", tmp_path / "new", {}, "expected emoji-scenes or emoji-scenes:5000, found 'none'"),
        (
            str(pictures),
            tmp_path / "new",
            {"config": BuildConfig(extractors=("captons",))},
            "expected bags, captions, class_folders,",
        ),
        (str(pictures), tmp_path / "new", {"config": BuildConfig(split=("shows",))}, "no relation is named 'shows'"),
    ]
    for folder, output, settings, problem in cases:
        with pytest.raises(DataError, match=problem) as raised:
            build(folder, output=str(output), **settings)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists() and (other / "mine.txt").read_text() == "mine"


def test_a_folder_of_unreadable_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(
        DataError, match=r"expected at least one readable picture, found none; the first problem: a\.png: expected"
    ):
        build(str(tmp_path / "pictures"), output=str(tmp_path / "graph"))


def test_relations_of_the_protocol_are_named_by_their_places() -> None:
    names = "contains, left of, right of, above, below, mentions, similar, same thing, continues, similar text, describes, of event"
    assert ", ".join(each.name for each in RELATIONS) == names
