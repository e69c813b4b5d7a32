"""Jobs of a studio: one after the other, told as they go, stopped without a trace, there again after a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.generate.studio_page import Tab
from photopic.core.edits.file import load
from photopic.core.events import Event
from photopic.studio import asking
from photopic.studio.worker import Work
from tests.studio.conftest import QUICK, StudioPage, png, running

LONG = {"prompt": "a bear", "count": 1, "steps": 900}
SHORT = {"prompt": "a bear", "count": 1, "steps": 1}


def test_two_tabs_hear_the_same_and_one_that_was_away_hears_what_it_missed(page: StudioPage) -> None:
    begun = page.get("/api/state")["event"]
    one, other = Tab(page), Tab(page)
    form = {
        "pictures": [{"id": page.picture()}],
        "noun": "bear",
        "output": "heard",
        "options": QUICK,
        "sample_every": 2,
    }
    job = page.start("subject", form)

    def ended(tab: Tab) -> bool:
        return "done" in tab.states(job)

    for tab in (one, other):
        assert tab.until(ended).states(job) == ["waiting", "running", "done"]
        assert tab.kinds(job).count("numbers") == QUICK["steps"] and "sample" in tab.kinds(job)
    late = Tab(page, begun).until(ended)
    assert late.events[: len(one.events)] == one.events
    half = one.events[len(one.events) // 2][0]
    rest = Tab(page, half).until(ended)
    assert rest.events == [event for event in late.events if event[0] > half]
    lost = Tab(page, 10**9).until(lambda tab: bool(tab.events))  # a number of another server
    assert lost.events[0][1] == "lost"
    for tab in (one, other, late, rest, lost):
        tab.close()


def test_jobs_wait_their_turn_and_one_that_waits_can_go(page: StudioPage) -> None:
    long, gone, last = page.start("draw", LONG), page.start("draw", SHORT), page.start("draw", SHORT)
    page.wait(long, lambda job: job["state"] == "running" and job["done"] > 1)
    assert [page.get(f"/api/jobs/{job}")["state"] for job in (gone, last)] == ["waiting", "waiting"]
    assert page.ask("DELETE", f"/api/jobs/{gone}").json["state"] == "cancelled"
    page.ask("DELETE", f"/api/jobs/{long}")
    assert page.wait(long)["state"] == "cancelled"
    ended = page.wait(last)
    assert ended["state"] == "done" and ended["started"] >= page.get(f"/api/jobs/{long}")["ended"]
    assert page.ask("DELETE", f"/api/jobs/{gone}").status == 200  # over: forgotten
    assert page.ask("GET", f"/api/jobs/{gone}").status == 404
    assert not (page.studio.workspace.folder / "runs" / gone).exists()


def test_a_request_never_waits_for_the_model(page: StudioPage) -> None:
    job = page.start("draw", LONG)
    page.wait(job, lambda job: job["state"] == "running" and job["done"] > 1)
    spent = []
    for _ in range(15):
        began = time.perf_counter()
        page.get("/api/jobs")
        spent.append(time.perf_counter() - began)
    page.ask("DELETE", f"/api/jobs/{job}")
    page.wait(job)
    assert sorted(spent)[7] < 0.1, spent  # the median; 0.01 s measured


@pytest.mark.parametrize("kind", ["draw", "subject"])
def test_cancelling_in_the_middle_leaves_no_half_file_and_the_model_as_it_was(
    page: StudioPage, taught: dict[str, Any], kind: str
) -> None:
    digest = page.studio.models.current.digest()
    edits = sorted(path.name for path in page.studio.workspace.edits.iterdir())
    draw = LONG | {"prompt": "a <mine> bear", "edits": [{"name": "bear.edit"}]}
    options = QUICK | {"steps": 3000}
    subject = {
        "pictures": [{"id": page.picture()}],
        "noun": "cat",
        "output": "half.edit",
        "options": options,
        "sample_every": 1,
    }
    job = page.start(kind, draw if kind == "draw" else subject)
    page.wait(job, lambda job: job["done"] > 2 and job["stage"] in ("drawing", "locating") and job["total"] > 500)
    page.ask("DELETE", f"/api/jobs/{job}")
    ended = page.wait(job)
    assert ended["state"] == "cancelled" and ended["results"] == []
    folder = page.studio.workspace.folder
    assert sorted(path.name for path in page.studio.workspace.edits.iterdir()) == edits
    assert not list(folder.rglob("*.tmp")) and not (folder / "runs" / job / "checkpoints").exists()
    left = {path.name for path in (folder / "runs" / job).iterdir()} - {each["file"] for each in ended["samples"]}
    assert left <= {"job.json", "curve.jsonl", "data"}
    assert page.studio.models.current.edits.names() == () and page.studio.models.current.digest() == digest


def test_a_bug_of_ours_fails_its_job_and_nothing_else(page: StudioPage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(work: Work) -> Iterator[Event[Any]]:
        yield Event("breaking")
        raise KeyError("inner detail")

    monkeypatch.setattr(page.studio.worker, "bodies", {**asking.BODIES, "draw": broken})
    job = page.wait(page.start("draw", SHORT))
    assert job["state"] == "failed" and job["error"].startswith("KeyError: ") and "a bug" in job["error"]
    monkeypatch.undo()
    page.do("draw", SHORT)


def test_once_more_with_one_thing_changed(page: StudioPage, taught: dict[str, Any]) -> None:
    first = page.do("draw", SHORT | {"seed": 1})
    again = page.ask("POST", f"/api/jobs/{first['id']}/again", {"changes": {"seed": 2}}).json
    second = page.wait(again["id"])
    assert second["form"] == first["form"] | {"seed": 2}
    assert page.file(first["results"][0]) != page.file(second["results"][0])
    refused = page.ask("POST", f"/api/jobs/{first['id']}/again", {"changes": {"steps": "x"}})
    assert refused.status == 422 and refused.json["field"] == "steps"
    more = page.ask("POST", f"/api/jobs/{taught['id']}/again", {"changes": {"options": {"seed": 1}}}).json
    made = page.wait(more["id"])
    assert made["form"]["options"] == QUICK | {"seed": 1}
    assert made["results"][0]["name"] == "bear-2.edit"  # nothing is overwritten


def parts(path: Path) -> list[str]:
    return [part.digest() for part in load(path).parts]


def test_an_interrupted_search_goes_on_after_a_restart_to_the_same_edit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photopic.core.fit.SAVE_EVERY", 3)
    steps = 36  # a fast machine must not be done before it is stopped
    form = {"noun": "bear", "options": QUICK | {"steps": steps}, "output": "bear.edit"}
    with running(tmp_path / "a", model) as page:
        form["pictures"] = [{"id": page.picture()}]
        whole = page.do("subject", form | {"sample_every": 15})
        assert len(whole["samples"]) == 2  # they change nothing: compared below
    with running(tmp_path / "b", model) as page:
        page.picture()
        job = page.start("subject", form | {"sample_every": 0})
        page.wait(job, lambda job: job["stage"] == "locating" and job["done"] > 3)
        waiting = page.start("draw", SHORT)
    assert json.loads((tmp_path / "b/runs" / job / "job.json").read_text())["state"] == "interrupted"
    with running(tmp_path / "b", model) as page:
        assert page.get(f"/api/jobs/{job}")["state"] == "interrupted" and page.get("/api/edits") == []
        assert page.wait(waiting)["state"] == "done"  # what waited waits on
        tab = Tab(page)
        assert page.ask("POST", f"/api/jobs/{job}/again", {}).json["id"] == job
        ended = page.wait(job)
        tab.close()
        assert next(data["step"] for _, kind, data in tab.events if kind == "numbers") > 3  # from the checkpoint on
        assert ended["state"] == "done" and [point[0] for point in ended["curve"]] == list(range(1, steps + 1))
    assert parts(tmp_path / "a/edits/bear.edit") == parts(tmp_path / "b/edits/bear.edit")
    assert whole["state"] == "done"


def test_a_job_that_a_kill_cut_short_is_there_as_interrupted(model: Path, tmp_path: Path) -> None:
    with running(tmp_path, model) as page:
        job = page.do("draw", SHORT)["id"]
    record = tmp_path / "runs" / job / "job.json"
    record.write_text(record.read_text().replace('"state": "done"', '"state": "running"'))
    (tmp_path / "edits" / ".half.edit.tmp").write_bytes(b"half")
    (tmp_path / "runs" / "000009").mkdir()
    (tmp_path / "runs" / "000009" / "job.json").write_text("{")
    with running(tmp_path, model) as page:
        assert [(each["id"], each["state"]) for each in page.get("/api/jobs")] == [(job, "interrupted")]
        assert not list(tmp_path.rglob("*.tmp"))
        page.ask("POST", f"/api/jobs/{job}/again", {})
        assert page.wait(job)["state"] == "done"


def test_a_model_that_cannot_be_loaded_leaves_a_page_that_works(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text((model / "model_index.json").read_text())
    with running(tmp_path / "ws", broken, str(model)) as page:
        state = page.get("/api/state")["model"]
        assert state["status"] == "failed" and "broken" in state["error"] and "\n" not in state["error"]
        failed = page.wait(page.start("draw", SHORT))
        assert failed["state"] == "failed" and failed["error"] == state["error"]
        assert page.picture() and page.get("/api/methods")
        loaded = page.ask("POST", "/api/model", {"name": "tiny"})
        assert loaded.status == 202 and page.wait(loaded.json["id"])["state"] == "done"
        assert page.get("/api/state")["model"]["status"] == "ready"
        page.do("draw", SHORT)
        refused = page.ask("POST", "/api/model", {"name": str(model)})  # a path, though there is a model
        assert refused.status == 400 and refused.json["field"] == "model"


def test_a_workspace_has_one_studio_at_a_time(page: StudioPage) -> None:
    from photopic.core.errors import PhotopicError
    from photopic.studio.app import open_studio

    with pytest.raises(PhotopicError, match="another studio works here"):
        open_studio(page.studio.workspace.folder, "emoji-diffusion")


def test_a_folder_of_200_pictures(page: StudioPage) -> None:
    files = {
        f"class {number % 4}/{number:03d}.png": png(number, 255 - number, number // 2, side=33) for number in range(200)
    }
    found = page.upload("/api/pictures", files).json
    assert len(found["pictures"]) == 200 and not found["refused"]
    assert len({each["id"] for each in found["pictures"]}) == 200
    assert [each["name"] for each in found["pictures"]] == list(files)
    small = page.ask("GET", found["pictures"][7]["url"] + "?size=64")
    assert small.headers["content-type"] == "image/jpeg" and len(small.body) < 3000
    pictures = [{"id": each["id"], "caption": ""} for each in found["pictures"]]
    job = page.do("subject", {"pictures": pictures, "noun": "cat", "options": QUICK | {"steps": 1}})
    assert job["provenance"]["images"] == 200
