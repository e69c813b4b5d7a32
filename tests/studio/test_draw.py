"""The room Draw: to the bit what ``photopic generate`` draws, each picture with the settings that bring its form back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from photopic.data.pictures import SETTINGS_KEY, read_settings
from tests.cli.conftest import run
from tests.studio.conftest import StudioPage, pixels, png

BOXES = [
    {"words": "<mine> bear", "box": [0.0, 0.0, 0.5, 1.0], "edit": "bear.edit"},
    {"words": "cat", "box": [0.5, 0.0, 1.0, 1.0]},
]
CASES: dict[str, tuple[dict[str, Any], tuple[object, ...]]] = {
    "edit": ({"prompt": "a <mine> bear", "edits": [{"name": "bear.edit", "weight": 0.5}]}, ("--with", "{edit}", "--weight", 0.5)),
    "layout": ({"prompt": "a <mine> bear and a cat", "edits": [{"name": "bear.edit"}], "layout": BOXES, "in_region": True},
               ("--with", "{edit}", "--layout", "{layout}", "--in-region")),
    "start": ({"prompt": "a bear", "negative": "a dog", "scheduler": "euler", "seed": 3,
               "controls": ["adaptive_guidance:threshold=0.9"], "start": {"picture": "{picture}", "strength": 0.9}},
              ("--negative", "a dog", "--scheduler", "euler", "--seed", 3, "--control", "adaptive_guidance:threshold=0.9",
               "--image", "{image}", "--strength", 0.9)),
    "size": ({"prompt": "a bear", "width": 48, "height": 32}, ("--width", 48, "--height", 32)),
}  # fmt: skip


def filled(value: Any, known: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: filled(each, known) for name, each in value.items()}
    return value.format(**known) if isinstance(value, str) and value.startswith("{") else value


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2
@pytest.mark.parametrize("case", CASES)
def test_pictures_are_those_of_the_command_to_the_byte(
    page: StudioPage, taught: dict[str, Any], model: Path, tmp_path: Path, case: str
) -> None:
    (tmp_path / "start.png").write_bytes(png(10, 200, 90, side=48))
    layout = '{"regions": [{"words": "<mine> bear", "box": [0, 0, 0.5, 1]}, {"words": "cat", "box": [0.5, 0, 1, 1]}]}'
    (tmp_path / "layout.json").write_text(layout)
    known = {
        "edit": page.studio.workspace.edits / "bear.edit",
        "layout": tmp_path / "layout.json",
        "image": tmp_path / "start.png",
        "picture": page.picture(10, 200, 90, side=48),
    }
    form, words = CASES[case]
    form = filled(form, known) | {"count": 3, "steps": 2, "batch": 2}
    done = page.do("draw", form)
    options = [str(word).format(**known) for word in words]
    run(
        "generate",
        form["prompt"],
        "-n",
        3,
        "--steps",
        2,
        "--batch",
        2,
        "--model",
        model,
        "-o",
        tmp_path / "out",
        *options,
    )
    for number, found in enumerate(done["results"], 1):
        content = page.file(found)
        expected = tmp_path / "out" / f"{number:04d}.png"
        assert (pixels(content) == pixels(expected.read_bytes())).all()
        (tmp_path / "mine.png").write_bytes(content)
        mine, theirs = read_settings(tmp_path / "mine.png"), read_settings(expected)
        for settings in (mine, theirs):  # files may be called otherwise, and layouts be written otherwise
            for each in ("image", "layout"):
                for key in ("file", "sha256"):
                    settings.get(each, {}).pop(key, None)
        assert mine == theirs
    assert done["provenance"]["prompt"] == form["prompt"] and len(done["results"]) == 3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2
@pytest.mark.parametrize("case", CASES)
def test_a_picture_of_either_brings_back_its_form(
    page: StudioPage, taught: dict[str, Any], model: Path, tmp_path: Path, case: str
) -> None:
    form, _ = CASES[case]
    form = filled(form, {"picture": page.picture(10, 200, 90, side=48)}) | {"count": 2, "steps": 2, "seed": 5}
    second = page.file(page.do("draw", form)["results"][1])
    (dropped,) = page.upload("/api/pictures", {"dropped.png": second}).json["pictures"]
    assert dropped["settings"]["missing"] == [] and dropped["settings"]["seed"] == 6
    again = page.do("draw", dropped["settings"]["form"])
    (found,) = again["results"]
    same = np.abs(pixels(page.file(found)).astype(int) - pixels(second)).max()
    assert same <= 1  # a batch of one in place of two: docs/sampling.md says how much that changes
    if case == "edit":
        run("generate", form["prompt"], "--with", page.studio.workspace.edits / "bear.edit", "--weight", 0.5, "--seed", 6, "-n", 1,
            "--steps", 2, "--model", model, "-o", tmp_path)  # fmt: skip
        (mine,) = page.upload("/api/pictures", {"mine.png": (tmp_path / "0001.png").read_bytes()}).json["pictures"]
        assert mine["settings"]["form"] == dropped["settings"]["form"]


def test_settings_name_what_is_missing_and_nonsense_is_none(page: StudioPage, taught: dict[str, Any]) -> None:
    def dropped(settings: Any) -> Any:
        text, file = PngInfo(), io.BytesIO()
        text.add_text(SETTINGS_KEY, json.dumps(settings))
        Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=text)
        return page.upload("/api/pictures", {"x.png": file.getvalue()}).json["pictures"][0]["settings"]

    edit = {"file": "gone.edit", "sha256": "0" * 64, "weight": 0.5}
    found = dropped({"prompt": "a <gone> cat", "steps": 4, "guidance": 2.0, "edits": [edit], "seed": 9})
    assert found["missing"] == ["gone.edit"] and found["form"]["edits"] == [{"name": "gone.edit", "weight": 0.5}]
    renamed = next(each for each in page.get("/api/edits") if each["name"] == "bear.edit") | {
        "file": "other.edit",
        "weight": 1,
    }
    found = dropped(
        {"prompt": "a <mine> bear", "steps": 4, "edits": [{key: renamed[key] for key in ("file", "sha256", "weight")}]}
    )
    assert found["form"]["edits"][0]["name"] == "bear.edit"  # by its content
    for nonsense in (
        {},
        [],
        3,
        "x",
        {"prompt": ""},
        {"prompt": "a", "steps": -1},
        {"prompt": "a", "edits": [3]},
        {"prompt": "a" * 9999},
    ):
        assert dropped(nonsense) is None


def test_where_each_word_was_read_changes_no_picture(page: StudioPage, taught: dict[str, Any]) -> None:
    form = {"prompt": "a <mine> bear", "edits": [{"name": "bear.edit"}], "count": 3, "steps": 2, "batch": 2}
    plain, read = page.do("draw", form), page.do("draw", form | {"attention": True})
    for one, other in zip(plain["results"], read["results"], strict=True):
        assert page.file(one) == page.file(other)
        assert [each["word"] for each in other["words"]] == ["a", "<mine>", "bear"]
    maps = [page.file({"url": each["maps"][0]}) for found in read["results"] for each in found["words"]]
    assert len(set(maps)) == len(maps) == 9 and Image.open(io.BytesIO(maps[0])).width >= 256


def test_maps_are_those_of_locate_attention(page: StudioPage, taught: dict[str, Any]) -> None:
    from photopic.calls.drawing import Asked, draw_events, prepare
    from photopic.locate.attention import AttentionConfig, attention
    from photopic.models.text_to_image.generate_config import GenerateConfig
    from photopic.models.text_to_image.handle import TextToImage
    from tests.tiny import tiny_pipeline

    model = TextToImage(tiny_pipeline(), "tiny")
    config = GenerateConfig(steps=2, batch=1)
    events = draw_events(prepare(Asked(prompt="a red bear", count=2, seed=4, config=config, attention=True)), model)
    drawn = [event.result for event in events if event.result is not None]
    for index, each in enumerate(drawn):
        expected = attention(model, "a red bear", config=AttentionConfig(seed=4 + index, steps=2))
        assert each.maps is not None and np.allclose(each.maps, expected.values, atol=1e-6)


REFUSED = [
    ({"prompt": ""}, "prompt"),
    ({"steps": 0}, "steps"),
    ({"count": 100_000}, "count"),
    ({"guidance": "much"}, "guidance"),
    ({"colour": "red"}, "colour"),
    ({"edits": [{"name": "gone.edit"}]}, "edits.0"),
    ({"edits": [{"name": "bear.edit", "weight": 2}]}, "edits.0.weight"),
    ({"in_region": True}, "in_region"),
    ({"layout": [{"words": "cat", "box": [0, 0, 2, 1]}]}, "layout.0.box.2"),
    ({"layout": [{"words": "cat", "box": [0, 0, 1, 1], "edit": "bear.edit"}]}, "layout.0.edit"),
    (
        {"edits": [{"name": "bear.edit"}], "layout": [{"words": "cat", "box": [0, 0, 1, 1], "edit": "bear.edit"}]},
        "layout.0.words",
    ),
]


@pytest.mark.parametrize(("change", "field"), REFUSED, ids=str)
def test_a_form_is_refused_by_its_field(
    page: StudioPage, taught: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    answer = page.ask("POST", "/api/jobs", {"kind": "draw", "form": {"prompt": "a bear", **change}})
    assert answer.status in (404, 422) and answer.json["field"] == field and "found" in answer.error


def test_a_size_is_refused_beside_a_picture_to_start_from(page: StudioPage, taught: dict[str, Any]) -> None:
    form = {"prompt": "a bear", "width": 48, "start": {"picture": page.picture(10, 200, 90, side=48)}}
    answer = page.ask("POST", "/api/jobs", {"kind": "draw", "form": form})
    assert (answer.status, answer.json["field"]) == (422, "width") and "found 48" in answer.error


def test_what_the_drawing_refuses_is_said_without_paths(page: StudioPage, taught: dict[str, Any]) -> None:
    form = {"prompt": "a cat", "edits": [{"name": "bear.edit"}], "steps": 1, "count": 1}
    failed = page.wait(page.start("draw", form))
    assert failed["state"] == "failed" and failed["results"] == []
    assert failed["error"].startswith("bear.edit: expected its word <mine> in the prompt")


def test_an_edit_that_is_deleted_while_its_drawing_begins_is_named(
    page: StudioPage, taught: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from photopic.calls import drawing

    edits, prepare = page.studio.workspace.edits, drawing.prepare
    (edits / "brief.edit").write_bytes((edits / "bear.edit").read_bytes())

    def late(asked: drawing.Asked) -> drawing.Prepared:
        (edits / "brief.edit").unlink()
        return prepare(asked)

    monkeypatch.setattr(drawing, "prepare", late)
    job = page.start("draw", {"prompt": "a <mine> bear", "count": 1, "steps": 1, "edits": [{"name": "brief.edit"}]})
    found = page.wait(job)
    assert (found["state"], found["field"]) == ("failed", "edits.0") and "of the workspace" in found["error"]
