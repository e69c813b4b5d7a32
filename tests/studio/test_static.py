"""The committed page is the build of its sources, small, and names nothing beyond this machine; checked without Node.js."""

import hashlib
import json
import re
from pathlib import Path

import pytest

STUDIO = Path(__file__).resolve().parents[2] / "src/photopic/studio"
SOURCES, BUILT = STUDIO / "frontend", STUDIO / "static"
BESIDE = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js")  # sources outside src/
PAGE_BYTES = 150_000


def digest_of_sources(folder: Path) -> str:
    """As vite.config.js writes it into the page: SHA-256 over "name NUL content NUL" in the order of the names."""
    found = [folder / name for name in BESIDE] + [path for path in (folder / "src").rglob("*") if path.is_file()]
    sha = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in found):
        sha.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    return sha.hexdigest()


def test_the_built_page_is_of_these_sources():
    page = (BUILT / "index.html").read_text()
    built = re.search(r'<meta name="sources" content="([0-9a-f]{64})"', page)
    assert built is not None
    assert built[1] == digest_of_sources(SOURCES), (
        "sources changed after the build: run `make studio-page` and commit static/"
    )


def test_the_page_is_three_small_files():
    files = {path.name: path.stat().st_size for path in BUILT.iterdir()}
    assert set(files) == {"index.html", "studio.js", "studio.css"}
    assert sum(files.values()) <= PAGE_BYTES


@pytest.mark.parametrize("name", ["index.html", "studio.js", "studio.css"])
def test_the_page_names_no_other_place(name):
    """Names of namespaces are no addresses that a browser asks for."""
    text = re.sub(r"http://www\.w3\.org/[\w./]+", "", (BUILT / name).read_text())
    assert re.findall(r"(?:https?:)?//[\w-]+(?:\.[\w-]+)+", text) == []


def test_the_lock_holds_no_address_of_a_registry():
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


def test_what_the_page_runs_is_preact_alone():
    package = json.loads((SOURCES / "package.json").read_text())
    assert set(package["dependencies"]) == {"preact", "@preact/signals"}
