"""What goes on around the rooms: two tabs, a folder of many pictures, a model that fails, runs made again, every method's form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.studio.browser.conftest import Tabs, pictures_of_a_thing
from tests.studio.conftest import StudioPage, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_two_tabs_show_the_same_job_and_either_cancels_it(tabs: Tabs, studio: StudioPage) -> None:
    first = tabs.open()
    second = tabs.open(beside=first)
    first.get_by_label("Prompt", exact=True).fill("a boat")
    first.get_by_label("Pictures", exact=True).fill("64")
    first.get_by_text("More options").click()
    first.get_by_label("Steps", exact=True).fill("500")
    first.get_by_role("button", name="Draw 64 pictures").click()
    second.get_by_role("heading", name="a boat").wait_for()
    assert second.get_by_label("Prompt", exact=True).input_value() == "", "each tab has its own form"
    second.get_by_role("button", name="Cancel", exact=True).last.click()
    first.get_by_text("Cancelled. Nothing half made was kept.").wait_for()
    assert studio.get("/api/jobs")[0]["state"] == "cancelled"


def test_a_folder_of_two_hundred_pictures(tabs: Tabs, studio: StudioPage, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        pictures_of_a_thing(tmp_path / name, 100, side=16)
    tab = tabs.open("methods/measure%20transferability")
    tab.get_by_label("Choose a folder").first.set_input_files(tmp_path)
    tab.get_by_text("200 pictures in 2 classes: cat, dog").wait_for()
    assert tab.locator(".uploads img").count() == 24, "a few are shown, all are sent"
    tab.get_by_role("button", name="Run").click()
    tab.get_by_role("heading", name="measure transferability", exact=True).wait_for()
    job = studio.get("/api/jobs")[0]
    sent = studio.get(f"/api/jobs/{job['id']}")["form"]["fields"]["images"]
    assert len(sent) == 200 and {each["label"] for each in sent} == {"cat", "dog"}
    studio.ask("DELETE", f"/api/jobs/{job['id']}")


def test_a_model_that_fails_to_load_is_explained(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    with running(tmp_path / "ws", tmp_path / "broken") as studio:
        tabs = Tabs(browser, studio)
        tab = tabs.open()
        banner = tab.locator(".banner")
        banner.wait_for()
        assert "The model broken could not be loaded" in banner.inner_text() and "Choose another" in banner.inner_text()
        tab.get_by_label("Prompt", exact=True).fill("a bear")
        tab.get_by_role("button", name="Draw 4 pictures").click()
        tab.locator(".outcome .alert").wait_for()
        tab.get_by_role("button", name="Model failed").click()
        assert tab.get_by_role("dialog").get_by_label("Load another").is_enabled()
        tabs.close()


def test_a_run_is_made_again_with_one_thing_changed(tabs: Tabs, studio: StudioPage) -> None:
    done = studio.do("draw", {"prompt": "a boat", "count": 1, "steps": 2})
    tab = tabs.open("runs")
    tab.get_by_role("link", name="a boat").first.click()
    tab.get_by_label("What", exact=True).select_option("prompt")
    tab.get_by_label("Its new value").fill("a star")
    tab.get_by_role("button", name="Run again").click()
    tab.get_by_role("heading", name="a star").wait_for()
    tab.get_by_label("Open seed 0").wait_for()
    forms = [studio.get(f"/api/jobs/{job}")["form"] for job in (done["id"], studio.get("/api/jobs")[0]["id"])]
    assert {name for name in forms[0] if forms[0][name] != forms[1][name]} == {"prompt"}
    tab.get_by_text("Provenance").click()
    assert tab.get_by_text("Provenance").locator("..").locator("dt").count() > 3


def test_every_method_has_a_form_with_its_fields(tabs: Tabs, studio: StudioPage) -> None:
    tab = tabs.open("methods")
    rows = studio.get("/api/methods")
    tab.get_by_role("navigation", name="Methods").get_by_role("link").nth(len(rows) - 1).wait_for()
    for row in rows:
        tab.goto(re.sub("#.*", f"#/methods/{row['command'].replace(' ', '%20')}", tab.url))
        tab.get_by_role("heading", name=f"photopic {row['command']}", exact=True).wait_for()
        shown = tab.locator(".method-form").locator("input:not(.unseen), select, fieldset").count()
        assert shown >= len(row["fields"]), row["command"]


@pytest.mark.parametrize(
    "value, line", [("-1", "steps: expected 1 or more."), ("1.5", "steps: expected a whole number.")]
)
def test_a_number_out_of_its_range_is_refused_beside_its_field(
    tabs: Tabs, tmp_path: Path, value: str, line: str
) -> None:
    tab = tabs.open("methods/locate%20neurons")
    tab.get_by_label("noun").fill("bear")
    tab.get_by_role("button", name="Run").click()
    tab.get_by_text("images: choose pictures.").wait_for()
    tab.get_by_label("Choose pictures", exact=True).set_input_files(pictures_of_a_thing(tmp_path, 1))
    tab.locator(".uploads img").wait_for()
    steps = tab.get_by_label("steps", exact=True)
    steps.fill(value)
    tab.get_by_role("button", name="Run").click()
    tab.get_by_text(line).wait_for()
    assert steps.get_attribute("aria-invalid") == "true"
