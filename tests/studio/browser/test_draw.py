"""The Draw room: edits with a layout drawn by mouse, where words were read, before and after, settings brought back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.studio.browser.conftest import Tabs, started
from tests.studio.conftest import StudioPage

if TYPE_CHECKING:
    from playwright.sync_api import Page


def fill(tab: Page, prompt: str, *, count: int = 1, steps: int = 2) -> None:
    tab.get_by_label("Prompt", exact=True).fill(prompt)
    tab.get_by_label("Pictures", exact=True).fill(str(count))
    tab.get_by_text("More options").click()
    tab.get_by_label("Steps", exact=True).fill(str(steps))


def drag(tab: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Over the canvas of the layout, in shares of its sides."""
    tab.get_by_test_id("layout").scroll_into_view_if_needed()
    area = tab.get_by_test_id("layout").bounding_box()
    (x0, y0), (x1, y1) = ((area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end))
    tab.mouse.move(x0, y0)
    tab.mouse.down()
    tab.mouse.move((x0 + x1) / 2, (y0 + y1) / 2)
    tab.mouse.move(x1, y1)
    tab.mouse.up()


def test_two_edits_with_a_layout_drawn_by_mouse(tabs: Tabs, studio: StudioPage, two_edits: tuple[str, str]) -> None:
    tab = tabs.open()
    for name in two_edits:
        tab.get_by_role("switch", name=name).check()
    assert tab.get_by_label("Prompt", exact=True).input_value() == "a <mine> bear and a <other> cat", (
        "the words come with the edits"
    )
    fill(tab, "a <mine> bear and a <other> cat on a red background")
    weight = tab.get_by_label("Weight of cat.edit")
    weight.focus()
    weight.press("ArrowLeft")
    tab.get_by_text("Layout", exact=True).click()
    drag(tab, (0.05, 0.1), (0.45, 0.9))
    tab.get_by_label("Words of box 1").wait_for()
    drag(tab, (0.55, 0.1), (0.95, 0.9))
    tab.get_by_label("Edit", exact=True).first.select_option("bear.edit")
    tab.get_by_label("Edit", exact=True).last.select_option("cat.edit")
    tab.get_by_label("Each edit in its own box only").check()
    drag(tab, (0.75, 0.5), (0.75, 0.55))  # moves the second box down
    form = started(studio, tab, "Draw 1 picture")["form"]
    tab.get_by_label("Open seed 0").wait_for()
    assert form["edits"] == [{"name": "bear.edit", "weight": 1.0}, {"name": "cat.edit", "weight": 0.95}]
    assert form["in_region"] is True
    first, second = form["layout"]
    assert (first["words"], first["edit"]) == ("<mine> bear", "bear.edit")
    assert (second["words"], second["edit"]) == ("<other> cat", "cat.edit")
    for found, wanted in ((first["box"], (0.05, 0.1, 0.45, 0.9)), (second["box"], (0.55, 0.15, 0.95, 0.95))):
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 0.02


def test_a_layout_by_the_keyboard_alone(tabs: Tabs, studio: StudioPage) -> None:
    tab = tabs.open()
    fill(tab, "a bear on a red background")
    tab.get_by_text("Layout", exact=True).focus()
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Add a box").focus()
    tab.keyboard.press("Enter")
    tab.locator("[data-words='0']:focus").wait_for()  # the focus goes where its words are written
    tab.keyboard.type("bear")
    box = tab.get_by_role("button", name="Box 1, bear: left 10 %, top 30 %, width 40 %, height 40 %")
    box.focus()
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowDown"):
        tab.keyboard.press(key)
    form = started(studio, tab, "Draw 1 picture")["form"]
    assert form["layout"][0]["box"] == [0.12, 0.28, 0.52, 0.7]
    box = tab.locator("[data-box='0']")
    box.focus()
    tab.keyboard.press("Delete")
    tab.locator(".layout-add:focus").wait_for()
    assert box.count() == 0


def test_words_show_where_they_were_read_and_edits_what_they_changed(
    tabs: Tabs, studio: StudioPage, two_edits: tuple[str, str]
) -> None:
    tab = tabs.open()
    tab.get_by_role("switch", name="bear.edit").check()
    fill(tab, "a <mine> bear on a red background", count=2)
    started(studio, tab, "Draw 2 pictures")
    tab.get_by_label("Open seed 1").wait_for()
    tab.get_by_role("button", name="red", exact=True).hover()
    assert tab.locator("img.lit[data-word=red]").count() == 2, "over every picture"
    tab.get_by_label("Open seed 1").hover()
    assert tab.locator("img.lit").count() == 0
    tab.get_by_role("button", name="bear", exact=True).focus()
    assert tab.locator("img.lit[data-word=bear]").count() == 2, "with the keyboard too"

    tab.get_by_label("Open seed 1").click()
    before = started(studio, tab, "Before and after the edits")["form"]
    divider = tab.get_by_label("Divider between before and after")
    divider.wait_for()
    frame = tab.get_by_test_id("before-after").bounding_box()
    tab.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 30)
    tab.mouse.down()
    tab.mouse.move(frame["x"] + frame["width"] * 0.8, frame["y"] + 30, steps=4)
    tab.mouse.up()
    assert 75 <= int(divider.input_value()) <= 85
    divider.press("ArrowLeft")
    assert tab.locator(".before-after .over").get_attribute("style").startswith("clip-path: inset(0")
    assert before["edits"] == [{"name": "bear.edit", "weight": 0.0}] and before["seed"] == 1
    tab.keyboard.press("Escape")
    assert tab.get_by_role("dialog").count() == 0


def test_a_picture_brings_its_settings_back(tabs: Tabs, studio: StudioPage, tmp_path: Path) -> None:
    form = {"prompt": "a panda and a tree", "seed": 7, "steps": 3, "count": 2, "guidance": 3.0, "negative": "a dog"}
    done = studio.do("draw", form)
    (tmp_path / "drawn.png").write_bytes(studio.file(done["results"][1]))
    tab = tabs.open()
    tab.get_by_label("Restore from a picture").set_input_files(tmp_path / "drawn.png")
    tab.get_by_text("The form is as it was when this picture was drawn.").wait_for()
    assert tab.get_by_label("Prompt", exact=True).input_value() == "a panda and a tree"
    tab.get_by_text("More options").click()
    found = {
        label: tab.get_by_label(label, exact=True).input_value()
        for label in ("Steps", "Guidance", "Lead away from", "Seed")
    }
    assert found == {"Steps": "3", "Guidance": "3", "Lead away from": "a dog", "Seed": "8"}, (
        "the seed is that of this picture"
    )


def test_problems_are_written_beside_their_fields(tabs: Tabs) -> None:
    tab = tabs.open()
    tab.get_by_role("button", name="Draw 4 pictures").click()
    prompt = tab.get_by_label("Prompt", exact=True)
    tab.get_by_text("Say what to draw, such as: a bear on a red background.").wait_for()
    assert prompt.get_attribute("aria-invalid") == "true"
    tab.locator("textarea:focus").wait_for()
    fill(tab, "a bear", steps=0)
    prompt.press("Control+Enter")  # sends the form too
    steps = tab.get_by_label("Steps", exact=True)
    tab.locator("input[type=number][aria-invalid=true]:focus").wait_for()
    assert steps.get_attribute("aria-invalid") == "true"


SHIFTS = """() => {
    window.shifts = 0;
    const told = (list) => list.getEntries().forEach((each) => { shifts += each.hadRecentInput ? 0 : each.value; });
    new PerformanceObserver(told).observe({type: 'layout-shift', buffered: true});
}"""


def test_nothing_jumps_while_the_page_loads_and_pictures_come(tabs: Tabs, studio: StudioPage) -> None:
    tab = tabs.open()
    tab.evaluate(SHIFTS)
    fill(tab, "a boat on a blue background", count=4, steps=40)
    tab.wait_for_timeout(600)  # what moves within half a second of an input is the input's
    started(studio, tab, "Draw 4 pictures")
    tab.get_by_text("4 pictures in").wait_for()
    assert tab.evaluate("shifts") <= 0.05, "cumulative layout shift; a page is called good up to 0.1"


def test_a_size_of_ones_own(tabs: Tabs, studio: StudioPage) -> None:
    tab = tabs.open()
    fill(tab, "a bear on a red background")
    tab.get_by_label("Width", exact=True).fill("48")
    form = started(studio, tab, "Draw 1 picture")["form"]
    assert (form["width"], form["height"]) == (48, None)
    tab.get_by_label("Open seed 0").wait_for()
