"""The report page is one file that fetches nothing, and every piece of text on it is only text."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from photopic.core.view import Bars, Code, Figure, Gallery, Interval, Intervals, Note, PictureRows, Section, Table, Text
from photopic.data.overlays import overlay
from photopic.report.axes import IntervalAxis
from photopic.report.html import render

PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def whole_page(text: str = "plain") -> str:
    blocks = [
        Text(text),
        Note(text, title=text),
        Code(text),
        Gallery([Figure(PICTURE, caption=text, alt=text, badge=text)], caption=text),
        PictureRows([(text, [PICTURE, PICTURE])], caption=text),
        Table((text, "n"), [(text, 1.5), (text, "12 %")], caption=text),
        Bars([(text, 0.25, text)], caption=text),
        Intervals([Interval(text, 0.5, 0.4, 0.7, strong=True), Interval(text, 0.1, 0.0, 0.2)], caption=text),
    ]
    return render(text, [Section(text, blocks)], lead=text, facts=[(text, text)])


def test_nothing_is_fetched_and_no_script_runs() -> None:
    html = whole_page()
    assert not re.search(r"https?://|<script|@import|url\(|\bon\w+=", html)
    assert "default-src 'none'" in html  # the browser enforces it too
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', html))


def test_text_is_escaped_everywhere() -> None:
    evil = "<b onload=x>\"'&"
    assert evil not in whole_page(evil)
    assert whole_page(evil).count("&lt;b onload=x&gt;") == whole_page("MARK").count("MARK")


def test_pictures_are_kept_exactly() -> None:
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', whole_page())
    assert len(encoded) == 3
    for each in encoded:
        assert (np.array(Image.open(io.BytesIO(base64.b64decode(each)))) == PICTURE).all()


def test_pictures_have_words_for_those_who_cannot_see_them() -> None:
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]*>", whole_page()))


def test_intervals_share_one_axis() -> None:
    intervals = Intervals([Interval("a", 0.5, 0.4, 0.7), Interval("b", 0.1, 0.0, 0.2)])
    places = [IntervalAxis(intervals).place(value) for value in (0.0, 0.1, 0.5, 0.7)]
    assert places == sorted(places) and places[0] > 0 and places[-1] < 100
    assert IntervalAxis(Intervals([Interval("same", 0.5, 0.5, 0.5)])).place(0.5) == pytest.approx(50)


def test_an_overlay_is_dark_without_and_bright_with_attention() -> None:
    image = np.full((8, 8, 3), 200, np.uint8)
    assert overlay(image, np.zeros((2, 2))).max() < 100
    bright = overlay(image, np.ones((2, 2)))
    assert bright[..., 0].min() > 200 and bright[..., 0].min() > 2 * int(bright[..., 2].max())


def test_long_text_that_starts_with_a_sign_is_no_number() -> None:
    table = Table(("sum", "error"), [("+0.33 nail polish +0.26 bottle with popping cork", "-0.02 (-0.05 to +0.01)")])
    html = render("t", [Section("s", [table])])
    assert "<td>+0.33 nail polish" in html and '<td class="n">-0.02' in html
