"""The Classifier and Guard rooms with a tiny classifier: a graph that can be pulled at, and a guard that says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from photopic.data.pictures import png_bytes
from tests.studio.browser.conftest import Tabs, started
from tests.studio.conftest import StudioPage, running
from tests.tiny_classifiers import saved_classifier

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COLOURS = {"red": (230, 30, 30), "orange": (240, 130, 20), "yellow": (245, 220, 40), "blue": (30, 60, 220)}


@pytest.fixture(scope="module")
def studio(browser: Browser, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioPage]:
    """A studio that was given a classifier of four colours besides."""
    folder = tmp_path_factory.mktemp("classifying")
    net = saved_classifier(folder / "net", tuple(COLOURS), np.array(list(COLOURS.values())))
    with running(folder / "ws", model, str(net)) as studio:
        yield studio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of each colour, a little apart from it."""
    folder, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(12):
            pixels = np.clip(np.array(colour) + generator.normal(0, 25, (12, 12, 3)), 0, 255).astype(np.uint8)
            (folder / name / f"{number}.png").write_bytes(png_bytes(pixels))
    return folder


def test_a_class_of_the_graph_is_chosen_read_and_pulled_at(tabs: Tabs, studio: StudioPage, folder: Path) -> None:
    tab = tabs.open("classifier")
    tab.get_by_role("tab", name="Rank").press("ArrowRight")
    tab.get_by_role("tab", name="Dependencies", selected=True).wait_for()
    tab.get_by_label("model").first.select_option("net")
    tab.get_by_label("Choose a folder").first.set_input_files(folder)
    tab.get_by_text("48 pictures in 4 classes").wait_for()
    tab.get_by_label("error", exact=True).fill("0.9")
    done = started(studio, tab, "Measure")
    assert done["state"] == "done", done["error"]
    row = next(row for row in done["results"][0]["data"]["rows"] if row["dependent"])
    node = tab.get_by_role("button", name=row["class"], exact=True)
    node.focus()
    assert tab.locator(".graph figcaption").inner_text().startswith(f"{row['class']} = ")
    place = node.locator("circle").last.bounding_box()
    tab.mouse.move(place["x"] + 4, place["y"] + 4)
    tab.mouse.down()
    tab.mouse.move(place["x"] + 64, place["y"] + 44, steps=4)
    tab.mouse.up()
    moved = node.locator("circle").last.bounding_box()
    assert abs(moved["x"] - place["x"] - 60) < 8 and abs(moved["y"] - place["y"] - 40) < 8


def test_a_guard_is_fitted_on_a_folder_and_says_why(
    tabs: Tabs, studio: StudioPage, folder: Path, tmp_path: Path
) -> None:
    tab = tabs.open("guard")
    tab.get_by_text("There is no guard yet: fit one below.").wait_for()
    fit = tab.get_by_label("Fit a guard")
    fit.get_by_label("model").first.select_option("net")
    fit.get_by_label("Choose a folder").first.set_input_files(folder)
    fit.get_by_text("48 pictures in 4 classes").wait_for()
    assert started(studio, tab, "Fit it")["state"] == "done"
    (tmp_path / "green.png").write_bytes(png_bytes(np.full((12, 12, 3), (20, 220, 60), np.uint8)))
    tab.get_by_label("Choose pictures to check").set_input_files([folder / "blue" / "3.png", tmp_path / "green.png"])
    verdicts = tab.locator(".verdicts li")
    verdicts.nth(1).wait_for()
    first = verdicts.first
    assert "taken for blue" in first.inner_text() and first.locator("img").count() == 1
    shown = [each.inner_text() for each in verdicts.all()]
    judged = studio.get(f"/api/jobs/{studio.get('/api/jobs')[0]['id']}")["results"][0]["data"]
    assert all(row["reason"] in text for row, text in zip(judged["pictures"], shown, strict=True))
    assert [
        ("accept" if row["accepted"] else "reject") in text for row, text in zip(judged["pictures"], shown, strict=True)
    ] == [True, True]
