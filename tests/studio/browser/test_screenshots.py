"""The README's pictures of the studio, taken of the page itself; only where STUDIO_SCREENSHOTS asks for them anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.studio.browser.conftest import Tabs
from tests.studio.conftest import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).resolve().parents[3] / "docs/images"


@pytest.mark.skipif(
    "STUDIO_SCREENSHOTS" not in os.environ, reason="STUDIO_SCREENSHOTS=1 writes docs/images/studio-*.png"
)
@pytest.mark.timeout(1200)
def test_pictures_of_the_readme(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "ws", "emoji-diffusion") as studio:
        tabs = Tabs(browser, studio)
        tab = tabs.open("subject")
        tab.set_default_timeout(600_000)
        tab.get_by_role("button", name="Try it with our pictures").click()
        tab.get_by_label("Caption of picture 5").wait_for()
        tab.get_by_text("More options").click()
        tab.get_by_label("Steps", exact=True).fill("80")
        tab.get_by_label("A sample every").fill("10")
        tab.get_by_text("More options").click()
        tab.get_by_role("button", name="Teach it").click()
        tab.get_by_text("step 40", exact=True).wait_for()
        tab.locator(".panel").evaluate("panel => panel.scrollTo(0, 0)")
        tab.screenshot(path=IMAGES / "studio-subject.png")

        tab.get_by_role("button", name="Draw with it").first.click()
        tab.get_by_label("Prompt", exact=True).press("End")
        tab.get_by_label("Prompt", exact=True).press_sequentially(" on a blue background")
        tab.get_by_label("Pictures", exact=True).fill("8")
        tab.get_by_role("button", name="Draw 8 pictures").click()
        tab.get_by_label("Open seed 7").wait_for()
        tab.locator(".toast button").first.click()
        tab.get_by_role("button", name="<mine>", exact=True).or_(tab.locator(".word").nth(1)).first.wait_for()
        tab.screenshot(path=IMAGES / "studio-draw.png")
        tabs.close()
