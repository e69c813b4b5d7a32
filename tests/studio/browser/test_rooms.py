"""Every room: accessible, at home on every width, light and fast; checked by axe-core and the browser's own clocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.studio.browser.conftest import Tabs
from tests.studio.conftest import StudioPage

if TYPE_CHECKING:
    from playwright.sync_api import Page

FRONTEND = Path(__file__).resolve().parents[3] / "src/photopic/studio/frontend"
AXE = FRONTEND / "node_modules/axe-core/axe.min.js"
ROOMS = ("subject", "draw", "edits", "classifier", "guard", "runs", "methods/locate%20neurons")
PAGE_BYTES = 150_000
FOCUS_IS_SEEN = (
    "document.activeElement.matches('.skip') || getComputedStyle(document.activeElement).outlineStyle !== 'none'"
)
SIZES = "performance.getEntriesByType('resource').filter(({name}) => /[.](js|css)$/.test(name)).map((each) => each.decodedBodySize)"
PAGE = "performance.getEntriesByType('navigation')[0].decodedBodySize"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
WATCH = """() => {
    window.times = [];
    const told = (list) => list.getEntries().forEach((each) => times.push(each.duration));
    new PerformanceObserver(told).observe({type: 'event', durationThreshold: 16});
}"""


def settled(tab: Page) -> None:
    """Nothing is being read any more."""
    tab.locator("main").wait_for()
    for reading in tab.locator(".reading").all():
        reading.wait_for(state="detached")


@pytest.fixture(scope="module")
def lived_in(studio: StudioPage, two_edits: tuple[str, str]) -> list[str]:
    """Rooms as they are in use: edits, a drawing with maps and its run."""
    done = studio.do(
        "draw", {"prompt": "a <mine> bear", "edits": [{"name": "bear.edit"}], "count": 2, "steps": 2, "attention": True}
    )
    return [*ROOMS, f"runs/{done['id']}", "edits/bear.edit"]


def audit(tab: Page) -> list[str]:
    """Serious findings of axe-core, each with its first place."""
    tab.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = tab.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)"
    )
    return [
        f"{each['id']}: {each['help']} at {each['nodes'][0]['target']} ({each['nodes'][0]['failureSummary']})"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.skipif(not AXE.is_file(), reason=f"needs axe-core: npm ci in {FRONTEND.name}")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_in_any_room(tabs: Tabs, lived_in: list[str], scheme: str) -> None:
    tab = tabs.open(color_scheme=scheme)
    findings = {}
    for room in lived_in:
        tab.goto(tab.url.split("#")[0] + f"#/{room}")
        settled(tab)
        tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        findings[room] = audit(tab)
    assert {room: found for room, found in findings.items() if found} == {}


@pytest.mark.skipif(not AXE.is_file(), reason=f"needs axe-core: npm ci in {FRONTEND.name}")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_in_a_dialog(tabs: Tabs, lived_in: list[str], scheme: str) -> None:
    tab = tabs.open(color_scheme=scheme)
    tab.get_by_label("Open seed 0").click()
    assert audit(tab) == []


@pytest.mark.parametrize("width", [1280, 768, 380])
def test_no_room_is_wider_than_the_window(tabs: Tabs, lived_in: list[str], width: int) -> None:
    tab = tabs.open(width=width)
    wide = {}
    for room in lived_in:
        tab.goto(tab.url.split("#")[0] + f"#/{room}")
        settled(tab)
        wide[room] = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert {room: pixels for room, pixels in wide.items() if pixels > 0} == {}


def test_rooms_are_reached_by_the_keyboard(tabs: Tabs) -> None:
    """The first stop leads past the frame; every room is one of the next; the focus is always to be seen."""
    tab = tabs.open()
    stops = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate("document.activeElement.textContent.trim()"))
        assert tab.evaluate(FOCUS_IS_SEEN)
    assert stops[0] == "To the room"
    assert stops[2:9] == ["Subject", "Draw", "Edits", "Classifier", "Guard", "Runs", "Methods"]
    tab.get_by_role("link", name="Guard").press("Enter")
    tab.locator("main:focus").wait_for()
    assert tab.title() == "Guard · photopic studio"


def test_colours_follow_the_choice_and_outlive_a_reload(tabs: Tabs) -> None:
    tab = tabs.open(color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)
    for _ in range(2):  # system, light, dark
        tab.get_by_role("button", name="Colours").click()
    dark = tab.evaluate(paper)
    tab.reload()
    assert dark != light and tab.evaluate(paper) == dark


def test_the_page_is_light_and_first_seen_within_a_second(tabs: Tabs) -> None:
    tab = tabs.open()
    painted = []
    for _ in range(3):  # the quickest: what else the machine does is not the page's
        tab.reload()
        tab.locator("button.model.ready").wait_for()
        painted.append(tab.evaluate(PAINTED))
    assert min(painted) <= 1000
    sizes = tab.evaluate(SIZES)
    assert len(sizes) == 2 and sum(sizes) + tab.evaluate(PAGE) <= PAGE_BYTES


def test_an_interaction_takes_a_tenth_of_a_second_while_a_job_runs(tabs: Tabs, studio: StudioPage) -> None:
    tab = tabs.open()
    job = studio.start("draw", {"prompt": "a bear", "count": 64, "steps": 200, "batch": 1})
    studio.wait(job, lambda found: found["state"] == "running")
    tab.evaluate(WATCH)
    prompt = tab.get_by_label("Prompt", exact=True)
    prompt.click()
    tab.keyboard.type("a cat left of a tree", delay=20)
    for room in ("Runs", "Subject", "Draw"):
        tab.get_by_role("link", name=room, exact=True).click()
    running = studio.get(f"/api/jobs/{job}")["state"]
    times = sorted(tab.evaluate("times"))
    studio.ask("DELETE", f"/api/jobs/{job}")
    assert running == "running" and len(times) > 20
    assert times[len(times) * 3 // 4] <= 100, times  # the 75th percentile
