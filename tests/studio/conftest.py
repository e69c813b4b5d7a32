"""A studio on a port of its own over a tiny real model, and a page's side of the conversation."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.generate.studio_page import Page
from photopic.data.pictures import png_bytes
from photopic.studio.app import open_studio
from photopic.studio.asking import Studio
from photopic.studio.server import Opened, serving
from tests.cli import conftest as command_line

QUICK = {"steps": 4, "batch": 2, "density": 0.1, "preservation_count": 2, "evaluation": 2}  # a search of a second


class StudioPage(Page):
    """A page whose studio can be looked into."""

    def __init__(self, opened: Opened, studio: Studio):
        super().__init__(opened.port, opened.keys.token)
        self.opened, self.studio = opened, studio

    def picture(self, *colour: int, side: int = 40) -> str:
        """A picture of one colour, uploaded; its id."""
        (found,) = self.upload("/api/pictures", {"picture.png": png(*colour, side=side)}).json["pictures"]
        key: str = found["id"]
        return key


def png(*colour: int, side: int = 40) -> bytes:
    """A picture of one colour with a darker corner."""
    image = np.full((side, side, 3), colour or (200, 30, 30), np.uint8)
    image[: side // 3, : side // 2] //= 2
    return png_bytes(image)


def pixels(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


@contextmanager
def running(workspace: Path, model: Path | str, *others: str, ready: bool = True) -> Iterator[StudioPage]:
    """A studio that answers; it is ended as Ctrl-C ends it."""
    studio = open_studio(workspace, str(model), others=others, device="cpu")
    with serving(studio) as opened:
        thread = threading.Thread(target=opened.run)
        thread.start()
        try:
            page = StudioPage(opened, studio)
            for _ in range(1500 if ready else 0):
                if page.get("/api/state")["model"]["status"] != "loading":
                    break
                time.sleep(0.02)
            yield page
        finally:
            opened.server.end()
            thread.join(20)
    assert not thread.is_alive()


model = command_line.model  # the folder of a tiny random pipeline


@pytest.fixture(scope="session")
def page(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioPage]:
    """A page of a studio that all tests share."""
    with running(tmp_path_factory.mktemp("studio") / "ws", model) as page:
        yield page


@pytest.fixture(scope="session")
def taught(page: StudioPage) -> dict[str, Any]:
    """A subject that was taught in it: ``bear.edit`` of the word <mine>."""
    pictures = [{"id": page.picture(200, 20 * number, 30), "caption": ""} for number in range(3)]
    form = {"pictures": pictures, "noun": "bear", "output": "bear.edit", "options": QUICK, "sample_every": 2}
    return page.do("subject", form)
