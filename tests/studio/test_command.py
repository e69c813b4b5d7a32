"""``photopic studio``: what it prints, what it opens, how it ends, and what it says where its packages are missing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.generate.studio_page import Page, Tab
from photopic.studio.server import Opened
from tests.cli.conftest import refusal, run


def test_a_browser_is_opened_with_a_ticket_and_never_with_the_token(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(Opened, "run", lambda self: None)
    said = run("studio", "--model", model, "--workspace", tmp_path / "ws").output
    token = re.search(r"http://127\.0\.0\.1:\d+/\?token=(\S+)", said)
    assert token is not None and len(token[1]) >= 43  # 256 bits in base64
    assert len(opened) == 1 and "/?token=" in opened[0] and token[1] not in opened[0]
    run("studio", "--model", model, "--workspace", tmp_path / "ws", "--no-browser")
    assert len(opened) == 1


def test_without_its_packages_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("photopic.studio")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install 'photopic[studio]'" in refusal("studio", "--workspace", tmp_path / "ws", "--no-browser")


def test_a_folder_or_model_that_is_none_is_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file" in refusal("studio", "--workspace", tmp_path / "file", "--no-browser")
    for word in ("no-such-model", str(tmp_path), "emoji-clip-vit"):
        assert word in refusal("studio", "--model", word, "--workspace", tmp_path / "ws", "--no-browser")
    assert not (tmp_path / "ws").exists()


def test_asked_to_end_it_keeps_what_runs(model: Path, tmp_path: Path) -> None:
    words = ["studio", "--no-browser", "--model", str(model), "--workspace", str(tmp_path / "ws")]
    command = [sys.executable, "-c", "from photopic.cli.main import app; app()", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)/\?token=(\S+)", process.stdout.readline())
            assert found is not None
            page = Page(int(found[1]), found[2])
            tab, job = Tab(page), page.start("draw", {"prompt": "a bear", "count": 1, "steps": 900})
            page.wait(job, lambda found: found["done"] > 1)
            process.send_signal(signal.SIGTERM)  # Ctrl-C goes the same way
            rest, said = process.communicate(timeout=60)
            tab.close()
        finally:
            process.kill()
    assert process.returncode == 0 and said == "stopped\n" and rest == ""
    assert json.loads((tmp_path / "ws/runs" / job / "job.json").read_text())["state"] == "interrupted"
