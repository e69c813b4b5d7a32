"""Captions beside pictures, in every form that trainers of the field write, and what is wrong with them in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.captions import METADATA
from photopic.data.folder import load_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    return tmp_path


def line(**values: object) -> str:
    return json.dumps({"file_name": "a.png", **values}) + "\n"


FORMS = {
    "a.txt": "\ufeffa bear\n  on a sofa \n",
    "a.TXT": "a bear on a sofa",
    "A.txt": "a bear on a sofa",
    "a.caption": "a bear on a sofa",
    "a.png.txt": "a bear on a sofa",
    METADATA: "\n" + line(text="a bear  on a sofa"),
    "metadata.JSONL": "\ufeff" + line(caption="a bear on a sofa", other=1),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_caption_is_read(folder: Path, name: str) -> None:
    (folder / name).write_text(FORMS[name], encoding="utf-8")
    (folder / "b.txt").write_text(" \n")
    assert load_folder(folder, 8).captions == ("a bear on a sofa", None)


def test_captions_that_agree_are_one_and_others_are_refused(folder: Path) -> None:
    (folder / "a.txt").write_text("a bear")
    (folder / "a.caption").write_text("a  bear\n")
    (folder / "a.png.txt").write_text("")
    assert load_folder(folder, 8).captions[0] == "a bear"
    (folder / METADATA).write_text(line(text="a mug"))
    with pytest.raises(DataError, match=r"a\.png: expected one caption, found others in .*metadata\.jsonl, line 1"):
        load_folder(folder, 8)


def test_same_stems_share_a_caption_unless_it_names_the_picture(folder: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(folder / "a.webp")
    (folder / "a.txt").write_text("a bear")
    assert load_folder(folder, 8).captions == ("a bear", "a bear", None)
    (folder / "a.txt").rename(folder / "a.webp.txt")
    assert load_folder(folder, 8).captions == (None, "a bear", None)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "ein B\u00e4r".encode("latin-1"), "expected a caption in UTF-8, found other bytes at position 5"),
        ("a.caption", b"x" * 100_000, "found 100,000"),
        (METADATA, b"a bear", "line 1: expected a JSON object"),
        (METADATA, b"[1]", 'line 1: expected "file_name" and "text"'),
        (METADATA, b'\n{"file_name": "a.png"}', 'line 2: expected "file_name" and "text"'),
    ],
)
def test_a_caption_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_folder(folder, 8)
    assert name in str(caught.value) and reason in str(caught.value) and "\n" not in str(caught.value)


def test_metadata_of_pictures_that_are_not_there_is_named(folder: Path) -> None:
    (folder / METADATA).write_text(line(file_name="c.png", text="a mug"))
    with pytest.warns(UserWarning, match=r"passed over c\.png \(named in metadata\.jsonl, not there\)"):
        load_folder(folder, 8)
