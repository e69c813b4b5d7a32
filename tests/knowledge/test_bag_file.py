"""Files of bags of concepts: read back equal, published data read unchanged, whatever is wrong told in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.knowledge.bag_file import check_picture, read_bags, write_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.bag_record import BagRecord, ImageFile, RunLengths, from_json, to_json
from photopic.knowledge.caption_text import parse
from tests.knowledge.captions import HARBOUR, MARKET, POSITIONS

OWL = ConceptObject("owl 1", True, "foreground", ("it sleeps",), ("white",), (1, 0, 3, 4))
BAG = BagOfConcepts("photo", "night", ("dark",), (), (OWL,), (Relation("owl 1", "sits on", "branch"),))
MASK = np.zeros((4, 6), bool)
MASK[:, 1:3] = True
RECORD = BagRecord(
    BAG, ImageFile("a.png", "ab" * 32, 6, 4), "exact", ("line 3: plural: owls",), {"owl 1": RunLengths.of(MASK)}
)


def stated(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(to_json(RECORD))) | changes


def changed_object(**changes: Any) -> dict[str, Any]:
    return stated(objects=[stated()["objects"][0] | changes])


def test_records_are_read_back_equal(tmp_path: Path) -> None:
    records = [RECORD, BagRecord(BagOfConcepts()), BagRecord(parse(MARKET).bag, source="a model")]
    write_bags(tmp_path / "bags.jsonl", records)
    assert list(read_bags(tmp_path / "bags.jsonl")) == records
    content = (tmp_path / "bags.jsonl").read_bytes()
    write_bags(tmp_path / "again.jsonl", read_bags(tmp_path / "bags.jsonl"))
    assert (tmp_path / "again.jsonl").read_bytes() == content
    with pytest.raises(FileExistsError):
        write_bags(tmp_path / "bags.jsonl", records)


@pytest.mark.parametrize("mask", [MASK, ~MASK, MASK & False, MASK | True, np.zeros((0, 3), bool)], ids=str)
def test_a_mask_survives_as_runs(mask: np.ndarray) -> None:
    assert (RunLengths.of(mask).mask == mask).all()
    counts = RunLengths.of(MASK).counts
    assert counts == (4, 8, 12)  # down the columns, as COCO counts


def test_the_published_data_set_is_read_unchanged(tmp_path: Path) -> None:
    lines = [{"path": "train/a.jpg", "caption": HARBOUR + POSITIONS}, {"path": "train/b.jpg", "caption": MARKET}]
    (tmp_path / "test_dataset.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_bags(tmp_path / "test_dataset.jsonl")
    assert first.image == ImageFile("train/a.jpg") and first.bag == parse(HARBOUR + POSITIONS).bag
    assert [repair.split(": ")[1] for repair in first.repairs] == ["extra field", "plural", "heading"]
    assert (len(second.bag.objects), second.repairs) == (10, ())


def test_a_picture_is_the_one_that_was_described(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    right = BagRecord(BAG, ImageFile("a.png", hashlib.sha256(b"picture").hexdigest(), 6, 4))
    assert check_picture(right, tmp_path) == b"picture"
    with pytest.raises(DataError, match="expected the picture with sha256 abababababab, found"):
        check_picture(RECORD, tmp_path)
    with pytest.raises(DataError, match="a path out of it"):
        check_picture(BagRecord(BAG, ImageFile("../a.png")), tmp_path / "sub")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], 'expected "format": "photopic scene graph 1", found'),
        (stated(format="photopic scene graph 9"), "found 'photopic scene graph 9'"),
        (stated(style=3), "style: expected text, found 3"),
        (stated(background="dark"), "background: expected a list of texts, found 'dark'"),
        (stated(objects={}), "objects: expected a list of objects"),
        (changed_object(name=""), "the name of an object: expected words"),
        (changed_object(living="yes"), "living: expected true, false or null, found 'yes'"),
        (changed_object(place="left"), "place: expected foreground, background, both or null"),
        (changed_object(index=2), "index: expected 1, as the name has it, found 2"),
        (changed_object(box=[1, 0, 3]), "box: expected left, top, right, bottom"),
        (changed_object(box=[1, 0, 3.5, 4]), "box: expected whole pixels"),
        (changed_object(box=[1, 0, float("nan"), 4]), "box: expected whole pixels"),
        (changed_object(box=[3, 0, 1, 4]), "is empty or reversed"),
        (changed_object(box=[1, 0, 9, 4]), "leaves the picture of 6 x 4 pixels"),
        (changed_object(mask={"size": [4, 6]}), "mask: expected"),
        (changed_object(mask={"size": [4, 6], "counts": [4]}), "runs over 4 x 6 pixels, found 4 pixels"),
        (changed_object(mask={"size": [6, 4], "counts": [24]}), "expected 4 x 6 pixels, found 6 x 4"),
        (stated(objects=stated()["objects"] * 2), "two objects are called 'owl 1'"),
        (stated(relations=[{"subject": "owls", "predicate": "on", "object": "x"}]), "'owls', which stands for owl 1"),
        (stated(image={"name": "a.png", "width": -1}), "image: expected its width and height"),
        (stated(image="a.png"), "image: expected an object"),
    ],
)
def test_a_record_that_is_wrong_is_refused_by_name(record: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_json(record)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: expected a JSON object, found something else"),
        ("[" * 100_000, "line 2: expected a JSON object"),
        ('{"caption": "An owl."}', "line 2: expected the text of a bag of concepts, found no section"),
        ('{"path": 3, "caption": ""}', 'line 2: expected "path" and "caption"'),
        ("null", "line 2: expected .format."),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bags.jsonl").write_text(json.dumps(to_json(RECORD)) + f"\n{line}\n")
    with pytest.raises(DataError, match=f"bags.jsonl: {message}"):
        list(read_bags(tmp_path / "bags.jsonl"))
    with pytest.raises(DataError, match="expected a file, found nothing"):
        list(read_bags(tmp_path / "none.jsonl"))
