"""Who may ask a studio, and what no request reaches: nothing without the token, no other page, no path outside, no bomb."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from benchmarks.guard.guard_requests import bomb
from photopic.studio.pictures import PICTURE_BYTES
from photopic.studio.routes import edit_routes, guard_routes, job_routes, picture_routes, state_routes
from photopic.studio.security import JSON_BYTES, REQUEST_BYTES, Keys
from tests.studio.conftest import StudioPage, png

OUTSIDE = "../../outside.edit"


def addresses(page: StudioPage) -> list[tuple[str, str]]:
    """Every address of the application."""
    found = []
    for routes in (state_routes, picture_routes, edit_routes, guard_routes, job_routes):
        for route in routes(page.studio).routes:
            assert isinstance(route, APIRoute)
            path = route.path.format(key="0" * 32, job="000001", name="bear.edit")
            found += [(method, path) for method in route.methods]
    return [*found, ("GET", "/assets/x.js")]


@pytest.mark.parametrize(
    "cookie", ["", "photopic_studio=x", "photopic_studio_{port}=x", "photopic_studio_{port}={other}"]
)
def test_without_the_token_nothing_answers(page: StudioPage, cookie: str) -> None:
    said = cookie.format(port=page.opened.port, other=Keys().token)
    asked = [
        *addresses(page),
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/?token=x"),
        ("OPTIONS", "/api/state"),
        ("PUT", "/x"),
    ]
    assert len(asked) > 25
    for method, path in asked:
        answer = page.ask(method, path, without=("Cookie",), Cookie=said)
        assert answer.status == 401, (method, path)
        assert "set-cookie" not in answer.headers


def test_the_printed_address_gives_the_cookie_and_a_ticket_does_so_once(page: StudioPage) -> None:
    first = page.ask("GET", f"/?token={page.opened.keys.token}", without=("Cookie", "Origin"))
    assert (first.status, first.headers["location"], first.body) == (303, "/", b"")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    once = page.opened.address_once.partition("/?")[2]
    assert page.opened.keys.token not in once
    assert [page.ask("GET", f"/?{once}", without=("Cookie",)).status for _ in range(2)] == [303, 401]
    opened = page.ask("GET", "/api/state", without=("Cookie",), Cookie=cookie.split(";")[0])
    assert opened.status == 200


FOREIGN = [
    ({"Host": "evil.example"}, 421),
    ({"Host": "evil.example:{port}"}, 421),
    ({"Host": "127.0.0.1:1"}, 421),
    ({"Host": "127.0.0.1:{port}.evil.example"}, 421),
    ({"Host": "[::1]:{port}"}, 421),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Origin": "https://127.0.0.1:{port}"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://localhost:{port}"}, 403),  # the same server under another name than the request's
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Sec_Fetch_Site": "same-site"}, 403),  # another port of this machine
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_foreign_page_is_refused(page: StudioPage, method: str, headers: dict[str, str], status: int) -> None:
    said = {name: value.format(port=page.opened.port) for name, value in headers.items()}
    assert page.ask(method, "/api/jobs", {}, **said).status == status


def test_what_changes_something_has_to_say_where_it_comes_from(page: StudioPage) -> None:
    body = {"kind": "none", "form": {}}
    assert page.ask("POST", "/api/jobs", body, without=("Origin",)).status == 403
    assert page.ask("POST", "/api/jobs", body, without=("Origin",), Sec_Fetch_Site="none").status == 403
    assert page.ask("POST", "/api/jobs", body, without=("Origin",), Sec_Fetch_Site="same-origin").status == 422
    assert page.ask("POST", "/api/jobs", body).status == 422


def test_a_link_elsewhere_opens_the_page_at_the_top_only(page: StudioPage) -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    token = f"/?token={page.opened.keys.token}"
    assert page.ask("GET", token, without=("Origin",), Sec_Fetch_Dest="document", **link).status == 303
    assert page.ask("GET", token, without=("Origin",), Sec_Fetch_Dest="iframe", **link).status == 403
    assert page.ask("GET", "/api/state", without=("Origin",), Sec_Fetch_Dest="document", **link).status == 403


def test_answers_say_what_a_browser_may_do_with_them(page: StudioPage, taught: dict[str, Any]) -> None:
    state = page.ask("GET", "/api/state").headers
    assert state["cache-control"] == "no-store" and state["referrer-policy"] == "no-referrer"
    assert state["x-content-type-options"] == "nosniff" and "server" not in state
    assert "frame-ancestors 'none'" in state["content-security-policy"]
    done = page.do("method", {"command": "edit verify", "fields": {"edit": "bear.edit"}})
    (report,) = [each for each in done["results"] if each["kind"] == "page"]
    policy = page.ask("GET", report["url"]).headers["content-security-policy"]
    assert policy.endswith("sandbox") and "default-src 'none'" in policy and "script" not in policy


def test_the_token_is_in_no_log(
    page: StudioPage, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    token = page.opened.keys.token
    with caplog.at_level(logging.DEBUG):
        page.ask("GET", f"/?token={token}", without=("Cookie",))
        page.ask("GET", f"/nothing?token={token}")
        page.ask("POST", "/api/pictures", b"broken", Content_Type="multipart/form-data; boundary=x")
    said = capfd.readouterr()
    assert token not in caplog.text + said.out + said.err
    assert not [
        path
        for path in page.studio.workspace.folder.rglob("*")
        if path.is_file() and token.encode() in path.read_bytes()
    ]


@pytest.fixture
def outside(page: StudioPage) -> Path:
    """A file beside the workspace that no request may read, change or delete."""
    path = page.studio.workspace.folder.parent / "outside.edit"
    path.write_bytes(b"a secret")
    return path


NAMES = [
    OUTSIDE,
    "..%2f..%2foutside.edit",
    "%2e%2e/outside.edit",
    "/etc/passwd",
    "",
    ".edit",
    "a/b.edit",
    "a\x00.edit",
    "link.edit",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_never_lead_out_of_the_workspace(
    page: StudioPage, outside: Path, taught: dict[str, Any], name: str
) -> None:
    link = page.studio.workspace.edits / "link.edit"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    before = {path for path in outside.parent.iterdir()}
    quoted = name.replace("\x00", "%00")
    answers = [
        page.ask("GET", f"/api/edits/{quoted}/view"),
        page.ask("DELETE", f"/api/edits/{quoted}"),
        page.ask("GET", f"/api/files/000001/{quoted}"),
        page.ask("GET", f"/api/files/../{quoted}"),
        page.ask("GET", f"/api/reports/{quoted}"),
        page.ask("GET", f"/api/pictures/{quoted}?size=256"),
        page.ask("GET", f"/assets/{quoted}"),
        page.ask("POST", "/api/edits/diff", {"a": name, "b": "bear.edit"}),
        page.ask("POST", "/api/edits/verify", {"name": name}),
        page.ask("POST", "/api/edits/compose", {"names": ["bear.edit", "bear.edit"], "output": name}),
        page.ask("POST", "/api/jobs", {"kind": "draw", "form": {"prompt": "a bear", "edits": [{"name": name}]}}),
        page.ask("POST", "/api/jobs", {"kind": "draw", "form": {"prompt": "a bear", "start": {"picture": name}}}),
        page.ask("POST", "/api/jobs", {"kind": "subject", "form": {"noun": "bear", "pictures": [{"id": name}]}}),
        page.ask("POST", "/api/jobs", {"kind": "method", "form": {"command": "edit inspect", "fields": {"edit": name}}}),
        page.ask("POST", "/api/jobs", {"kind": "method", "form": {"command": "edit import", "fields": {"file": name}}}),
        page.ask("POST", "/api/jobs", {"kind": "method", "form": {"command": "measure slopes", "fields": {"data": name}}}),
        page.ask("POST", "/api/jobs", {"kind": "method", "form": {"command": "edit verify", "fields": {"model": name}}}),
        page.ask("POST", "/api/model", {"name": name}),
    ]  # fmt: skip
    link.unlink()
    for number, answer in enumerate(answers):
        assert 400 <= answer.status < 500, (number, answer.status, answer.body)
        assert b"secret" not in answer.body
    assert outside.read_bytes() == b"a secret" and {path for path in outside.parent.iterdir()} == before


def test_a_control_reads_nothing_outside(page: StudioPage, tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_text('{"regions": [{"words": "bear", "box": [0, 0, 0.5, 1]}]}')
    (tmp_path / "reference.png").write_bytes(png(side=32))
    for control in ("layout_guidance:layout={}/layout.json", "negative_token_merging:reference={}/reference.png"):
        form = {"prompt": "a bear", "count": 1, "steps": 1, "controls": [control.format(tmp_path)]}
        assert page.wait(page.start("draw", form))["state"] == "failed"
    form["controls"] = [f"negative_token_merging:reference={page.picture(side=32)}"]
    page.do("draw", form)  # one that was uploaded


def test_labels_of_classes_stay_inside(page: StudioPage) -> None:
    key = page.picture()
    for label in ("..", "../x", "a/b", ".hidden", "a\\b/c", "x" * 200):
        fields = {"model": "emoji-resnet-64-0", "images": [{"id": key, "label": label}]}
        answer = page.ask(
            "POST", "/api/jobs", {"kind": "method", "form": {"command": "measure rank", "fields": fields}}
        )
        assert answer.status == 422 and answer.json["field"] == "images", label


def test_bombs_and_other_files_are_refused_one_by_one(page: StudioPage) -> None:
    files = {
        "bomb.png": bomb(60_000, 60_000),
        "text.png": b"hello",
        "whole.png": png(1, 2, 3),
        "cut.png": png()[:60],
        "empty.png": b"",
    }
    files["large.png"] = png() + bytes(PICTURE_BYTES)
    found = page.upload("/api/pictures", files).json
    assert [each["name"] for each in found["pictures"]] == ["whole.png"]
    said = {each["name"]: each["error"] for each in found["refused"]}
    assert said.keys() == files.keys() - {"whole.png"}
    assert "pixels" in said["bomb.png"] and "bytes" in said["large.png"]


def test_requests_end_at_their_limits(page: StudioPage) -> None:
    claimed = page.ask("POST", "/api/jobs", b"{}", Content_Length=str(JSON_BYTES + 1))
    assert claimed.status == 413
    assert page.ask("POST", "/api/pictures", b"", Content_Type="multipart/form-data; boundary=x",
                    Content_Length=str(REQUEST_BYTES + 1)).status == 413  # fmt: skip
    pieces = (b"10000\r\n" + b" " * 0x10000 + b"\r\n") * (JSON_BYTES // 0x10000 + 1) + b"0\r\n\r\n"
    sent = page.ask("POST", "/api/jobs", pieces, Transfer_Encoding="chunked")
    assert sent.status == 413, sent.body


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"nul", b'"x"', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_object_is_one_line(page: StudioPage, body: bytes) -> None:
    answer = page.ask("POST", "/api/jobs", body)
    assert answer.status == 400 and "JSON object" in answer.error
