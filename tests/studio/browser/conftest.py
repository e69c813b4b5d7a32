"""The page in a real browser: Chromium over Playwright, a studio with a tiny real model, and a log of everything asked for.

Without Chromium (``/usr/bin/chromium`` or the path in ``CHROMIUM``) or Playwright the tests are skipped and say what to install.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from photopic.data.pictures import png_bytes
from tests.studio.conftest import QUICK, StudioPage, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

    from benchmarks.generate.studio_page import JobState

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
REFUSED = re.compile(
    r"Failed to load resource: the server responded with a status of 4(09|22)"
)  # an answer that the page explains
WAIT_MS = int(os.environ.get("STUDIO_WAIT_MS", "60000"))


class Tabs:
    """Tabs of one browser with the cookie of one studio; what they ask for and complain of is written down.

    Attributes:
        asked: Addresses of all requests.
        complaints: Errors of scripts and of the console.
    """

    def __init__(self, browser: Browser, studio: StudioPage):
        self._browser, self._studio = browser, studio
        self._contexts: list[BrowserContext] = []
        self.asked: list[str] = []
        self.complaints: list[str] = []

    def open(self, room: str = "draw", *, beside: Page | None = None, width: int = 1280, **settings: Any) -> Page:
        """A tab in a room, in a window of its own or beside another; it is ready once the server has answered."""
        context = self._context(width, settings) if beside is None else beside.context
        tab = context.new_page()
        tab.goto(self._studio.opened.address)
        tab.goto(f"http://127.0.0.1:{self._studio.opened.port}/#/{room}")
        tab.locator("button.model.ready, button.model.failed").wait_for()
        return tab

    def _context(self, width: int, settings: dict[str, Any]) -> BrowserContext:
        context = self._browser.new_context(
            viewport={"width": width, "height": 860}, reduced_motion="reduce", **settings
        )
        context.set_default_timeout(WAIT_MS)
        context.on("request", lambda request: self.asked.append(request.url))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("console", self._hear)
        self._contexts.append(context)
        return context

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not REFUSED.match(message.text):
            self.complaints.append(message.text)

    def close(self) -> None:
        """Close them all; nothing may have left the machine and nothing gone wrong unseen."""
        for context in self._contexts:
            context.close()
        home = f"http://127.0.0.1:{self._studio.opened.port}/"
        assert [url for url in self.asked if not url.startswith((home, "data:", "blob:" + home))] == []
        assert self.complaints == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).is_file():
        pytest.skip("needs Chromium: apt-get install chromium, or name one with CHROMIUM=PATH")
    driver = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def studio(browser: Browser, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioPage]:
    """A studio with an empty workspace; where there is no browser it is not started."""
    with running(tmp_path_factory.mktemp("studio") / "ws", model) as studio:
        yield studio


@pytest.fixture
def tabs(browser: Browser, studio: StudioPage) -> Iterator[Tabs]:
    tabs = Tabs(browser, studio)
    yield tabs
    tabs.close()


@pytest.fixture(scope="module")
def two_edits(studio: StudioPage) -> tuple[str, str]:
    """Two subjects in the library, ``<mine> bear`` and ``<other> cat``; they set some of the same weights to different values."""
    pictures = [{"id": studio.picture(200, 20 * number, 40), "caption": ""} for number in range(3)]
    for steps, noun, token in ((1, "bear", "<mine>"), (2, "cat", "<other>")):
        named = {"noun": noun, "token": token, "output": f"{noun}.edit"}
        studio.do("subject", {"pictures": pictures, **named, "options": QUICK | {"tune": steps}})
    return "bear.edit", "cat.edit"


def started(studio: StudioPage, tab: Page, button: str) -> JobState:
    """Press a button that asks for a job, and have the job once it is over."""
    known = {job["id"] for job in studio.get("/api/jobs")}
    tab.get_by_role("button", name=button, exact=True).click()
    end = time.monotonic() + WAIT_MS / 1000
    while not (made := [job["id"] for job in studio.get("/api/jobs") if job["id"] not in known]):
        assert time.monotonic() < end, tab.locator(".problem, .alert").all_inner_texts()
        tab.wait_for_timeout(20)
    (job,) = made
    return studio.wait(job)


def pictures_of_a_thing(folder: Path, count: int, side: int = 48) -> list[Path]:
    """Files of pictures of one thing before several backgrounds."""
    paths = []
    rows, columns = np.mgrid[:side, :side]
    thing = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2
    for number in range(count):
        image = np.full((side, side, 3), (30 + 40 * number % 200, 160 - 17 * number % 150, 90), np.uint8)
        image[thing] = (250, 150, 20)
        paths.append(folder / f"thing-{number:03d}.png")
        paths[-1].write_bytes(png_bytes(image))
    return paths
