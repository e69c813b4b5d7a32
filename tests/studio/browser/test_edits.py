"""The Edits room: the library, a composition that is refused and explains itself, and how two files differ."""

from __future__ import annotations

from pathlib import Path

from tests.studio.browser.conftest import Tabs
from tests.studio.conftest import StudioPage


def test_a_refused_composition_explains_itself(tabs: Tabs, studio: StudioPage, two_edits: tuple[str, str]) -> None:
    tab = tabs.open("edits")
    for name in two_edits:
        tab.get_by_label(f"Choose {name}").check()
    tab.get_by_role("button", name="Compose 2").click()
    tab.get_by_label("Where they touch").get_by_role(
        "table"
    ).first.wait_for()  # the warning comes before anything is made
    tab.get_by_label("Name of the file", exact=True).fill("both.edit")
    tab.get_by_role("button", name="Compose", exact=True).click()
    refusal = tab.get_by_role("alert").filter(has_text="They were not put together")
    refusal.wait_for()
    assert "bear.edit" in refusal.inner_text() and "cat.edit" in refusal.inner_text()
    assert not (studio.studio.workspace.edits / "both.edit").exists()
    refusal.get_by_role("button", name="first: the first edit decides").click()
    tab.get_by_role("heading", name="both.edit").wait_for()
    assert (studio.studio.workspace.edits / "both.edit").is_file()


def test_an_edit_is_uploaded_inspected_compared_verified_and_deleted(
    tabs: Tabs, studio: StudioPage, two_edits: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "copy.edit").write_bytes((studio.studio.workspace.edits / "bear.edit").read_bytes())
    tab = tabs.open("edits")
    tab.get_by_label("Upload an edit").set_input_files(tmp_path / "copy.edit")
    tab.get_by_role("link", name="copy.edit").click()
    tab.get_by_role("heading", name="copy.edit").wait_for()
    tab.locator(".view table").first.wait_for()
    tab.get_by_role("button", name="Verify").click()
    tab.locator(".card .results").wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Export").click()
    assert download.value.suggested_filename == "copy.edit"
    for name in ("bear.edit", "copy.edit"):
        tab.get_by_label(f"Choose {name}").check()
    tab.get_by_role("button", name="Compare two").click()
    tab.get_by_role("heading", name="bear.edit and copy.edit").wait_for()
    tab.get_by_role("link", name="copy.edit").click()
    tab.get_by_role("button", name="Delete").click()
    tab.get_by_role("button", name="Delete copy.edit for good").click()
    tab.get_by_text("copy.edit is deleted.").wait_for()
    assert not (studio.studio.workspace.edits / "copy.edit").exists()


def test_what_is_no_edit_is_refused_in_words(tabs: Tabs, tmp_path: Path) -> None:
    (tmp_path / "none.edit").write_bytes(b"no edit")
    tab = tabs.open("edits")
    tabs.complaints.clear()
    tab.get_by_label("Upload an edit").set_input_files(tmp_path / "none.edit")
    toast = tab.locator(".toast.trouble")
    toast.wait_for()
    assert "none.edit" in toast.inner_text()
    tabs.complaints = [each for each in tabs.complaints if "status of 400" not in each]
