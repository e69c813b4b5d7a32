"""Edits on the hub, against a local endpoint that speaks its protocol, and from the cache."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from photopic.core.edits import Edit, TokenEmbedding, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.errors import EditError, EditFileError
from photopic.core.identity import Fingerprint
from photopic.edit.interop import hub_files, load_from_hub, model_card, save_to_hub

REPO, COMMIT = "me/bear", "0123456789012345678901234567890123456789"


def an_edit(name: str = "stable/model", token: str = "<mine>", **made: str) -> Edit:
    base = Fingerprint(name, "ab" * 32, {"unet.w": ""}, {"unet.w": (8,)})
    parts = (ZeroedWeights({"unet.w": torch.tensor([1, 5])}), TokenEmbedding(token, {"text_encoder": torch.ones(4)}))
    return Edit(parts, base, {"method": "locate.concept_neurons", **made})


class Hub(ThreadingHTTPServer):
    """The few routes of the hub that an upload and a download use; everything else is an error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_file(body=False)

    def do_GET(self) -> None:
        self.send_file(body=True)

    def send_file(self, body: bool) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        content = self.server.files.get(self.path.rpartition("/")[2])
        if content is None or not self.path.startswith(f"/{REPO}/resolve/"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if self.path.startswith(f"/{REPO}/") else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_POST(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer secret":
            self.answer({"error": "no access"}, status=401)
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{self.server.url}/{REPO}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == f"/api/models/{REPO}/preupload/main":
            paths = [file["path"] for file in json.loads(content)["files"]]
            self.answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        elif self.path == f"/api/models/{REPO}/commit/main":
            lines = [json.loads(line) for line in content.splitlines()]
            files = {each["value"]["path"]: each["value"]["content"] for each in lines if each["key"] == "file"}
            self.server.files |= {path: base64.b64decode(text) for path, text in files.items()}
            self.server.commits.append([each["key"] for each in lines])
            self.answer({"commitUrl": f"{self.server.url}/{REPO}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": self.path}, status=404)

    def answer(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_edit_goes_up_with_a_card_and_comes_down_the_same(hub: Hub, tmp_path: Path) -> None:
    edit = an_edit()
    url = save_to_hub(edit, REPO, token="secret", endpoint=hub.url)
    assert url == f"{hub.url}/{REPO}/commit/{COMMIT}"
    assert hub.files == hub_files(edit, REPO)
    assert hub.files.keys() == {"photopic.edit", "README.md"}
    assert hub.commits == [["header", "file", "file"]]
    hub.files["other.bin"] = b"never fetched"
    hub.seen.clear()
    again = load_from_hub(REPO, cache_dir=tmp_path, endpoint=hub.url, token="secret")
    assert edit_file.to_bytes(again) == edit_file.to_bytes(edit)
    assert {line.rpartition("/")[2] for line in hub.seen} == {"photopic.edit"}
    cached = load_from_hub(REPO, cache_dir=tmp_path, local_files_only=True)  # without the hub
    assert edit_file.to_bytes(cached) == edit_file.to_bytes(edit)


def test_what_was_downloaded_is_read_strictly(hub: Hub, tmp_path: Path) -> None:
    content = bytearray(edit_file.to_bytes(an_edit()))
    content[-1] ^= 1
    hub.files["photopic.edit"] = bytes(content)
    with pytest.raises(EditFileError, match=r"photopic\.edit: "):
        load_from_hub(REPO, cache_dir=tmp_path, endpoint=hub.url)


def test_failures_of_the_hub_are_one_line(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"^me/bear: photopic\.edit cannot be downloaded .*404.*access token$"):
        load_from_hub(REPO, cache_dir=tmp_path, endpoint=hub.url)
    with pytest.raises(EditError, match=r"^me/bear: photopic\.edit cannot be uploaded .*401.*access token$"):
        save_to_hub(an_edit(), REPO, token="wrong", endpoint=hub.url)
    with pytest.raises(EditError, match="not in the cache"):
        load_from_hub(REPO, cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(EditError, match="expected a repository as owner/name"):
        load_from_hub("a/b/c", cache_dir=tmp_path, local_files_only=True)


def test_a_hub_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"^me/bear: photopic\.edit cannot be uploaded"):  # tests run offline
        save_to_hub(an_edit(), REPO, token="secret")


def test_the_cache_of_the_hubs_own_library_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "models--me--bear"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / f"snapshots/{COMMIT}").mkdir(parents=True)
    edit_file.save(an_edit(), folder / f"snapshots/{COMMIT}/photopic.edit")
    assert load_from_hub(REPO, cache_dir=tmp_path, local_files_only=True).tokens == ("<mine>",)


def test_the_card_says_base_method_counts_and_how_to_use_it() -> None:
    card = model_card(an_edit(prompt="a <mine> bear"), REPO)
    assert card.startswith('---\nlibrary_name: photopic\nbase_model: "stable/model"\n')
    assert f"`{'ab' * 6}`" in card
    assert "`locate.concept_neurons`" in card
    assert "shut, 2 entries" in card
    assert "new token `<mine>`" in card
    example = card.split("```python\n")[1].split("```")[0]
    assert compile(example, "card", "exec")
    assert 'model.generate("a <mine> bear", seeds=range(4))' in example


def test_names_of_others_cannot_break_out_of_the_card() -> None:
    evil = 'x"\nmodel: y\n---\n|`</script>`'
    card = model_card(an_edit(name=evil, prompt='"); import os #', method=f"a|b{evil}"), REPO)
    assert "base_model" not in card
    assert card.split("---")[1].strip().splitlines()[0] == "library_name: photopic"
    assert all(line.count("|") == 3 for line in card.splitlines() if line.startswith("|"))
    assert compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    assert "import os" not in card.split("generate(")[1].split('"')[0]
