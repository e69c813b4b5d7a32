"""Layout files: what they say is read, and every mistake is one line that names the file and the fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.layout import Layout, Region
from photopic.data.layout_file import as_json, described, read_layout

BOX = {"words": "<mine> cat", "box": [0, 0, 0.5, 1], "strength": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a painted mask, a picture of two colours and a broken PNG."""
    mask = np.zeros((10, 20), np.uint8)
    mask[:, 10:] = 255
    Image.fromarray(mask).save(tmp_path / "right.png")
    colours = np.zeros((10, 20, 3), np.uint8)
    colours[:, :10] = (255, 0, 0)
    colours[5:, 10:] = (0, 0, 255)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    clear = np.full((4, 4, 4), 255, np.uint8)
    clear[:2, :, 3] = 0
    Image.fromarray(clear).save(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path


def read(folder: Path, stated: Any) -> Layout:
    (folder / "layout.json").write_text(stated if isinstance(stated, str) else json.dumps(stated))
    return read_layout(folder / "layout.json")


def test_boxes_and_masks_are_read(folder: Path) -> None:
    layout = read(folder, {"regions": [BOX, {"words": "guitar", "mask": "right.png"}], "outside": "neutral"})
    cat, guitar = layout.regions
    assert (cat.words, cat.box, cat.strength) == ("<mine> cat", (0.0, 0.0, 0.5, 1.0), 2.0)
    assert guitar.strength is None and guitar.bounds == (0.5, 0.0, 1.0, 1.0)
    assert layout.outside == "neutral" and not layout.may_overlap


def test_a_prompt_and_a_guidance_of_its_own_are_read_and_written(folder: Path) -> None:
    own = BOX | {"prompt": "a <mine> cat on a red background", "guidance": 7}
    painted = {"image": "colours.png", "colours": {"#ff0000": {"words": "cat", "guidance": 3}}}
    (cat,), (red,) = (read(folder, stated).regions for stated in ({"regions": [own]}, painted))
    assert (cat.prompt, cat.guidance, red.guidance) == (own["prompt"], 7.0, 3.0)
    layout = Layout((cat, Region("dög", (0.5, 0.25, 1.0, 1.0))), outside="neutral")
    again = read(folder, str(as_json(layout)))
    assert [vars(each) for each in again.regions] == [vars(each) for each in layout.regions]
    assert again.outside == "neutral" and as_json(Layout((red,))) is None
    assert described(layout).endswith("dög 0.50 0.25 to 1.00 1.00")


def test_what_is_transparent_is_outside(folder: Path) -> None:
    assert read(folder, {"regions": [{"words": "cat", "mask": "clear.png"}]}).regions[0].bounds == (0, 0.5, 1, 1)
    painted = {"image": "clear.png", "colours": {"#ffffff": "cat"}}  # its clear half hides the same colour
    assert read(folder, painted).regions[0].bounds == (0, 0.5, 1, 1)


def test_a_picture_gives_one_region_a_colour(folder: Path) -> None:
    colours = {"#FF0000": "<mine> cat", "#0000ff": {"words": "guitar", "strength": 3}}
    cat, guitar = read(folder, {"image": "colours.png", "colours": colours}).regions
    assert cat.bounds == (0.0, 0.0, 0.5, 1.0) and cat.words == "<mine> cat"
    assert guitar.bounds == (0.5, 0.5, 1.0, 1.0) and guitar.strength == 3


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ("{", "expected a layout as JSON"),
        ([], 'expected an object with "regions"'),
        ({"regions": [BOX], "image": "colours.png"}, 'with "regions", or'),
        ({"regions": [BOX], "inside": "shut"}, "the layout: unknown 'inside'; it may have regions"),
        ({"regions": [BOX | {"weight": 1}]}, "region '<mine> cat': unknown 'weight'; it may have words, box"),
        ({"regions": "cat"}, "regions: expected a list"),
        ({"regions": ["cat"]}, "a region: expected an object"),
        ({"regions": []}, "no region"),
        ({"regions": [BOX], "outside": "open"}, "outside: expected 'shut' or 'neutral', found 'open'"),
        ({"regions": [BOX], "may_overlap": 1}, "may_overlap: expected true or false"),
        ({"regions": [{"box": [0, 0, 1, 1]}]}, "expected the subject's words"),
        ({"regions": [{"words": "cat"}]}, "'cat': expected a box or a mask"),
        ({"regions": [BOX | {"box": [0, 0, 1]}]}, "expected a box of four numbers"),
        ({"regions": [BOX | {"box": [0, 0, 1, True]}]}, "expected a box of four numbers"),
        ({"regions": [BOX | {"box": [0, 0, 64, 64]}]}, "inside 0 to 1"),
        ({"regions": [BOX | {"strength": "high"}]}, "expected a strength such as 2.5"),
        ({"regions": [BOX | {"strength": 10**400}]}, "expected a strength such as 2.5"),
        ({"regions": [BOX | {"guidance": "high"}]}, "expected a guidance such as 5, found 'high'"),
        ({"regions": [BOX | {"guidance": 0.5}]}, "expected a guidance of 1 or more, found 0.5; 5 is usual"),
        ({"regions": [BOX | {"prompt": 3}]}, "expected a sentence as its prompt, found 3"),
        ({"regions": [BOX | {"prompt": " "}]}, "its own prompt is empty"),
        ({"regions": [BOX, {"words": "dog", "box": [0.4, 0, 1, 1]}]}, "'<mine> cat' and 'dog' overlap in 10.0%"),
        ({"regions": [{"words": "cat", "mask": "missing.png"}]}, "missing.png: expected a file, found nothing"),
        (
            {"regions": [{"words": "cat", "mask": "broken.png"}]},
            "broken.png: expected a readable image, found a damaged file",
        ),
        ({"regions": [{"words": "cat", "mask": 3}]}, "expected the name of a picture"),
        ({"image": "colours.png", "colours": {}}, "colours: expected an object"),
        ({"image": "colours.png", "colours": {"red": "cat"}}, "expected a colour such as '#ff0000', found 'red'"),
        ({"image": "colours.png", "colours": {"#ff0000": 3}}, "#ff0000: expected the subject's words"),
        (
            {"image": "colours.png", "colours": {"#00ff00": "cat"}},
            "#00ff00 of 'cat' is not in the picture; its colours are #ff0000, #",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(folder: Path, stated: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, stated)
    assert reason in str(caught.value) and "layout.json: " in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: expected a file, found nothing"):
        read_layout(tmp_path / "nowhere.json")
