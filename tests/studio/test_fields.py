"""Forms from the manifest: every method has one, what is filled in is checked by its field, and results come by their type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photopic.calls.methods import read_manifest
from photopic.core.edits.file import load
from tests.studio.conftest import QUICK, StudioPage, png, running
from tests.tiny_classifiers import saved_classifier

KINDS = {"text", "integer", "number", "flag", "choice", "model", "edit", "edits", "pictures", "file"}


@pytest.fixture(scope="module")
def rows(page: StudioPage) -> dict[str, dict[str, Any]]:
    return {row["command"]: row for row in page.get("/api/methods")}


def test_every_method_has_its_form(rows: dict[str, dict[str, Any]]) -> None:
    entries = {command: entry for command, entry in read_manifest().items() if entry["result"] != "Control"}
    assert rows.keys() == entries.keys() and len(rows) > 30
    for command, row in rows.items():
        names = [field["name"] for field in row["fields"]]
        options = [
            each for parameter in entries[command]["parameters"] for each in (parameter, *parameter.get("options", ()))
        ]
        asked = {each["name"] for each in options if each.get("role") != "config" and each["name"] != "output"}
        assert len(names) == len(set(names)) and asked <= set(names)
        for field in row["fields"]:
            assert field["kind"] in KINDS and field["help"] and field["label"], (command, field)
            assert field["kind"] != "choice" or field["choices"]


def test_fields_say_ranges_and_what_fits(rows: dict[str, dict[str, Any]]) -> None:
    fields = {field["name"]: field for field in rows["locate neurons"]["fields"]}
    assert fields["noun"]["required"] and not fields["noun"]["advanced"] and fields["lr"]["advanced"]
    assert (fields["batch"]["min"], fields["density"]["above"], fields["density"]["max"]) == (1, 0, 1)
    assert fields["model"]["default"] == "tiny" and "emoji-clip-vit" not in fields["model"]["choices"]
    assert fields["preset"]["choices"] == ["paper", "quick", "small-batch"] and fields["output"]["kind"] == "text"
    assert {field["name"]: field["labelled"] for field in rows["tune mask"]["fields"]}["data"] is True


def test_whatever_names_a_file_is_marked_so_that_no_path_of_a_browser_is_read() -> None:
    for command, entry in read_manifest().items():
        for option in (
            each for parameter in entry["parameters"] for each in (parameter, *parameter.get("options", ()))
        ):
            is_word = option.get("kind") == "text" and "choices" not in option and "exists" not in option
            # "output" is asked for as a name in the folder of the studio
            if is_word and option["name"] != "output" and (command, option["name"]) != ("edit import", "token"):
                assert not re.search(r"\b(file|path)\b", option["help"], re.IGNORECASE), (command, option["name"])


REFUSED = [
    ("locate neurons", {}, "images"),
    ("locate neurons", {"images": [], "noun": "bear"}, "images"),
    ("locate neurons", {"images": "emoji:groups", "noun": "bear"}, "images"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "steps": "many"}, "steps"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "steps": 1.5}, "steps"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "optimizer": "magic"}, "optimizer"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "binary": "yes"}, "binary"),
    ("locate neurons", {"images": ["{picture}"], "noun": 3}, "noun"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "preset": "best"}, "preset"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "colour": 1}, "colour"),
    ("locate neurons", {"images": ["{picture}"], "noun": "bear", "model": "emoji-clip-vit"}, "model"),
    ("edit inspect", {}, "edit"),
    ("dance", {}, "command"),
    ("generate layout-guidance", {}, "command"),
]


@pytest.mark.parametrize(("command", "said", "field"), REFUSED, ids=str)
def test_a_form_is_refused_by_its_field(page: StudioPage, command: str, said: dict[str, Any], field: str) -> None:
    key = page.picture()
    fields = {name: [key] if value == ["{picture}"] else value for name, value in said.items()}
    before = len(page.get("/api/jobs"))
    answer = page.ask("POST", "/api/jobs", {"kind": "method", "form": {"command": command, "fields": fields}})
    assert answer.status in (400, 422) and answer.json["field"] == field, answer.body
    assert len(page.get("/api/jobs")) == before and not list((page.studio.workspace.folder / "uploads").iterdir())


def test_a_value_out_of_its_range_fails_with_the_line_of_the_command(page: StudioPage) -> None:
    fields = {"images": [page.picture()], "noun": "bear", "steps": 0}
    failed = page.wait(page.start("method", {"command": "locate neurons", "fields": fields}))
    assert failed["error"] == "--steps: expected 1 or more, found 0" and failed["field"] == "steps"
    subject = {"pictures": [{"id": page.picture()}], "noun": "bear", "options": {"density": 2}}
    failed = page.wait(page.start("subject", subject))
    assert failed["state"] == "failed" and failed["field"] == "options.density"


def done(page: StudioPage, command: str, **fields: Any) -> dict[str, Any]:
    return page.do("method", {"command": command, "fields": fields})


def kinds(job: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in job["results"]]


def test_results_come_by_their_type(page: StudioPage, taught: dict[str, Any]) -> None:
    report = done(page, "edit inspect", edit="bear.edit")
    assert kinds(report) == ["view", "page"]
    assert report["results"][0]["data"]["values"]["tokens"] == ["<mine>"]
    blocks = [block for section in report["results"][0]["view"]["sections"] for block in section["blocks"]]
    assert {"table", "text"} <= {block["kind"] for block in blocks}
    assert b"<h1>" in page.file(report["results"][1])
    seen = done(page, "locate attention", prompt="a <mine> bear", edits=["bear.edit"], steps=1)
    assert kinds(seen).count("picture") == 5 and kinds(seen)[-1] == "file" and page.file(seen["results"][-1])
    made = done(page, "locate neurons", images=[page.picture()], noun="cat", token="<two>", output="two.edit", **QUICK)
    assert made["results"][0]["name"] == "two.edit" and made["curve"]
    written = done(page, "edit export", edit="bear.edit", to="kohya", rank=1)
    (file,) = [each for each in written["results"] if each["kind"] == "file"]
    again = page.upload("/api/uploads", {"lora.safetensors": page.file(file)}).json
    back = done(page, "edit import", file=again["id"], output="back.edit")
    assert back["results"][0]["name"] == "back.edit"
    slopes = done(page, "measure slopes", data="emoji-scenes:2", pictures=1, every=500, points=2)
    assert kinds(slopes) == ["view", "page"]
    names = [each["name"] for each in page.get("/api/edits")]
    assert {"two.edit", "back.edit"} <= set(names)
    for name in ("two.edit", "back.edit"):
        assert page.ask("DELETE", f"/api/edits/{name}").status == 204


def test_a_composition_says_first_where_edits_touch(page: StudioPage, taught: dict[str, Any]) -> None:
    made = done(
        page,
        "locate neurons",
        images=[page.picture(9, 9, 9)],
        noun="cat",
        token="<two>",
        output="two.edit",
        tune=1,
        **QUICK,
    )
    again = done(
        page,
        "locate neurons",
        images=[page.picture(9, 9, 9)],
        noun="cat",
        token="<six>",
        output="six.edit",
        tune=2,
        **QUICK,
    )
    assert kinds(made)[0] == kinds(again)[0] == "edit"
    both = {"names": ["two.edit", "six.edit"], "output": "both.edit"}
    seen = page.ask("POST", "/api/edits/interference", both).json
    assert "share" in json.dumps(seen["sections"][0]["blocks"][0])
    refused = page.ask("POST", "/api/edits/compose", both)
    assert refused.status == 409 and refused.json["overlaps"] == ["union", "first", "sum", "ties"]
    assert refused.json["view"]["sections"] == seen["sections"] and "both" in refused.error
    assert page.ask("POST", "/api/edits/compose", both | {"overlap": "first"}).json["edit"]["name"] == "both.edit"
    taken = page.ask("POST", "/api/edits/compose", both | {"overlap": "first"})
    assert taken.status == 409 and taken.json["field"] == "output"
    summed = page.ask(
        "POST", "/api/edits/compose", both | {"overlap": "sum", "weights": [0.5, 0.5], "output": "sum.edit"}
    )
    assert summed.status == 202 and page.wait(summed.json["job"]["id"])["results"][0]["name"] == "sum.edit"
    assert page.ask("POST", "/api/edits/diff", {"a": "two.edit", "b": "six.edit"}).json["sections"]
    for name in ("two.edit", "six.edit", "both.edit", "sum.edit"):
        assert page.ask("DELETE", f"/api/edits/{name}").status == 204


def test_a_ranking_is_uploaded_and_its_best_noise_becomes_an_edit(page: StudioPage) -> None:
    ranking = json.dumps({"name": "measure seeds", "rows": [{"seed": 7}, {"seed": 3}]}).encode()
    key = page.upload("/api/uploads", {"seeds.json": ranking}).json["id"]
    refused = page.upload("/api/uploads", {"seeds.exe": ranking})
    assert refused.status == 415 and "expected a name that ends in" in refused.error
    form = {"command": "edit seed", "fields": {"ranking": key, "place": 2, "output": "seed.edit"}}
    done = page.do("method", form)
    assert done["results"][0]["name"] == "seed.edit"
    made = load(page.studio.workspace.edits / "seed.edit")
    assert made.provenance["seed"] == 3 and made.parts[0].kind == "noise"
    assert page.ask("DELETE", "/api/edits/seed.edit").status == 204


def test_edits_come_and_go_as_files(page: StudioPage, taught: dict[str, Any]) -> None:
    content = page.ask("GET", "/api/edits/bear.edit").body
    assert content == (page.studio.workspace.edits / "bear.edit").read_bytes()
    taken = page.upload("/api/edits", {"bear.edit": content})
    assert taken.status == 409
    added = page.upload("/api/edits", {"copy.edit": content})
    assert (
        added.status == 201 and added.json["edits"][0]["noun"] == "bear" and added.json["edits"][0]["token"] == "<mine>"
    )
    for name, bad in (("bad.edit", content[:-9]), ("bad.edit", png()), ("../bad.edit", content), ("bad.exe", content)):
        assert page.upload("/api/edits", {name: bad}).status == 400
    assert page.ask("DELETE", "/api/edits/copy.edit").status == 204
    assert [each["name"] for each in page.get("/api/edits")].count("copy.edit") == 0


@pytest.fixture(scope="module")
def classifying(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioPage]:
    """A studio that was given a classifier besides."""
    folder = tmp_path_factory.mktemp("classifying")
    net = saved_classifier(folder / "net", ("red", "blue"), np.array([[230, 30, 30], [30, 30, 230]]))
    with running(folder / "ws", model, str(net)) as page:
        yield page


def labelled(page: StudioPage) -> list[dict[str, str]]:
    return [
        {"id": page.picture(red, 30 + number, blue, side=16), "label": label}
        for label, red, blue in (("red", 230, 30), ("blue", 30, 230))
        for number in range(4)
    ]


def test_a_classifier_is_seen_by_what_takes_one(classifying: StudioPage) -> None:
    fields = {row["command"]: {f["name"]: f for f in row["fields"]} for row in classifying.get("/api/methods")}
    assert (
        "net" in fields["locate grad-cam"]["model"]["choices"]
        and "tiny" not in fields["locate grad-cam"]["model"]["choices"]
    )
    done = classifying.do("method", {"command": "measure rank", "fields": {
        "model": "net", "images": labelled(classifying), "samples": 4, "patch": 4}})  # fmt: skip
    assert kinds(done) == ["view", "page"] and done["provenance"]["model"] == "net"


def test_a_guard_is_fitted_and_asked(classifying: StudioPage) -> None:
    pictures = labelled(classifying)
    fields = {"model": "net", "clean": pictures, "rate": 0.2, "output": "mine"}
    fitted = classifying.do("method", {"command": "guard fit", "fields": fields})
    assert (fitted["results"][0]["kind"], fitted["results"][0]["name"]) == ("guard", "mine.guard")
    (about,) = classifying.get("/api/guards")
    assert (about["name"], about["model"], about["checks"]) == ("mine.guard", "net", ["open_set"])
    keys = [each["id"] for each in reversed(pictures)]
    judged = classifying.do("check", {"guard": "mine.guard", "pictures": keys})["results"][0]
    assert judged["kind"] == "verdicts" and [row["id"] for row in judged["data"]["pictures"]] == keys
    assert judged["data"]["accepted"] + judged["data"]["rejected"] == len(keys)
    assert [row["label"] for row in judged["data"]["pictures"]] == ["blue"] * 4 + ["red"] * 4
    assert classifying.ask("DELETE", "/api/guards/mine.guard").status == 204 and classifying.get("/api/guards") == []
    again = classifying.ask("POST", "/api/jobs", {"kind": "check", "form": {"guard": "mine.guard", "pictures": keys}})
    assert again.status == 404 and again.json["field"] == "guard"


def test_examples_can_be_tried(page: StudioPage) -> None:
    found = page.ask("POST", "/api/examples").json
    assert len(found["pictures"]) == 5 and found["prompt"] == "a <mine> bear"
    assert all(each["caption"].startswith("a bear on a") for each in found["pictures"])
    assert page.ask("GET", found["pictures"][0]["url"]).status == 200
