"""Build the emoji world: fetch the pinned art, render it, write atlases and one table.

    python recipes/emoji-world/build.py            # writes src/photopic/data/emoji/

The art comes from npm packages whose versions and integrity hashes are pinned below. ``npm pack`` downloads them; nothing in
them is executed. SVG is rendered by resvg. Output is deterministic: same packages, same resvg, same bytes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "src" / "photopic" / "data" / "emoji"
TILE = 64  # pixels; the size at which Noto and Twemoji are published in their packages
COLUMNS = 44

PACKAGES = {  # name: (version, npm integrity)
    "emoji-datasource-google": (
        "16.0.0",
        "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
    ),
    "emoji-datasource-twitter": (
        "16.0.0",
        "sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
    ),
    "openmoji": (
        "17.0.0",
        "sha512-EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w==",
    ),
    "fluentui-emoji": (
        "1.3.0",
        "sha512-JTXXwqIie2rWTgOkIJDJxr0WtwTz2WU4kdOq8buLVThYwQ264aFR2jdTyuon2oEbLqqGMT64zI4btyn1saB2xw==",
    ),
}
STYLES = ("noto", "twemoji", "openmoji", "openmoji-black", "fluent-modern", "fluent-flat", "fluent-high-contrast")
GROUPS_LEFT_OUT = (
    "component",
    "extras-openmoji",
    "extras-unicode",
)  # skin-tone swatches, hair, and OpenMoji's own inventions
GENDER = (  # (pattern in the CLDR name, what the base concept is called)
    (re.compile(r"^(?:man|woman)(?=[ :])"), "person"),
    (re.compile(r"^(?:men|women) "), "people "),
)


def fetch(name: str, into: Path) -> Path:
    """Download one pinned package and refuse it unless its bytes have the pinned hash."""
    version, integrity = PACKAGES[name]
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{name}@{version}"], cwd=into, capture_output=True, text=True, check=True
    )
    archive = into / done.stdout.strip().splitlines()[-1]
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise SystemExit(f"{archive.name}: expected {integrity}, found {found}; the package is not the pinned one")
    folder = into / name
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def slug(name: str) -> str:
    """Fluent's file names: the CLDR short name in lower-case ASCII joined by hyphens."""
    ascii_name = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.replace("'", "")).strip("-")


def render_svg(path: Path) -> Image.Image:
    png = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=TILE * 4, height=TILE * 4))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    square = Image.new("RGBA", (TILE * 4, TILE * 4))  # a few drawings are not square: centre them
    square.paste(image, ((TILE * 4 - image.width) // 2, (TILE * 4 - image.height) // 2))
    return premultiplied_resize(square)


def premultiplied_resize(image: Image.Image) -> Image.Image:
    """Box-filter down to the tile without dark fringes: colour is averaged with alpha as its weight."""
    pixels = np.asarray(image.convert("RGBA"), np.float64) / 255
    pixels[..., :3] *= pixels[..., 3:]
    factor = pixels.shape[0] // TILE
    pixels = pixels.reshape(TILE, factor, TILE, factor, 4).mean((1, 3))
    alpha = pixels[..., 3:]
    pixels[..., :3] = np.where(alpha > 0, pixels[..., :3] / np.maximum(alpha, 1e-9), 0)
    return Image.fromarray((pixels * 255 + 0.5).astype(np.uint8), "RGBA")


def datasource(package: Path, folder: str) -> dict[str, Path]:
    """Map every code point sequence of an emoji-datasource package, qualified or not, to its 64 px picture."""
    found = {}
    for entry in json.loads((package / "emoji.json").read_text()):
        path = package / "img" / folder / "64" / entry["image"]
        for code in (entry["unified"], entry["non_qualified"]):
            if code and path.exists():
                found[code] = path
                found[code.replace("-FE0F", "")] = path
    return found


def base_concept(name: str, names: set[str]) -> str:
    """The concept a gender variant belongs to; a concept without variants is its own base."""
    candidate = re.sub(r": facing right$", "", name)
    for pattern, replacement in GENDER:
        neutral = pattern.sub(replacement, candidate)
        if neutral != candidate:
            bare = neutral.removeprefix("person ").removeprefix("people ")
            for option in (neutral, bare):
                if option in names:
                    return option
    return candidate if candidate in names else name


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, Path(scratch)) for name in PACKAGES}
        build(folders)


def build(folders: dict[str, Path]) -> None:
    openmoji = folders["openmoji"]
    entries = [
        entry
        for entry in json.loads((openmoji / "data" / "openmoji.json").read_text())
        if not entry["skintone"] and entry["group"] not in GROUPS_LEFT_OUT
    ]
    google = datasource(folders["emoji-datasource-google"], "google")
    twitter = datasource(folders["emoji-datasource-twitter"], "twitter")
    names = {entry["annotation"] for entry in entries}
    skin_toned = {
        entry["skintone_base_hexcode"]
        for entry in json.loads((openmoji / "data" / "openmoji.json").read_text())
        if entry["skintone"]
    }

    def picture(style: str, entry: dict) -> Image.Image | None:
        code = entry["hexcode"]
        if style in ("noto", "twemoji"):
            source = google if style == "noto" else twitter
            path = source.get(code) or source.get(code.replace("-FE0F", ""))
            return Image.open(path).convert("RGBA") if path else None
        if style.startswith("openmoji"):
            path = openmoji / ("black" if style.endswith("black") else "color") / "svg" / f"{code}.svg"
            return render_svg(path) if path.exists() else None
        icons = folders["fluentui-emoji"] / "icons" / style.removeprefix("fluent-")
        for stem in (slug(entry["annotation"]), slug(entry["annotation"]) + "-default"):
            if (icons / f"{stem}.svg").exists():
                return render_svg(icons / f"{stem}.svg")
        return None

    OUT.mkdir(parents=True, exist_ok=True)
    present: list[list[str]] = [[] for _ in entries]
    rows = -(-len(entries) // COLUMNS)
    for style in STYLES:
        atlas = np.zeros((rows * TILE, COLUMNS * TILE, 4), np.uint8)
        for index, entry in enumerate(entries):
            image = picture(style, entry)
            if image is None:
                continue
            tile = np.array(image)
            if tile.shape[:2] != (TILE, TILE):
                raise SystemExit(f"{style}/{entry['annotation']}: expected {TILE}x{TILE}, found {tile.shape[:2]}")
            if not tile[..., 3].any():
                continue  # OpenMoji's black "NEW button" is an empty drawing
            tile[tile[..., 3] == 0] = 0  # invisible colour would cost bytes and differ between renderers
            row, column = divmod(index, COLUMNS)
            atlas[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
            present[index].append(style)
        Image.fromarray(atlas, "RGBA").save(OUT / f"{style}.webp", lossless=True, quality=60, method=3, exact=True)
        print(f"{style}: {sum(style in p for p in present)} pictures, {(OUT / f'{style}.webp').stat().st_size:,} bytes")

    with (OUT / "concepts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("index", "name", "code_point", "group", "subgroup", "keywords", "base", "skin_tones", "styles")
        )
        for index, entry in enumerate(entries):
            name = entry["annotation"]
            writer.writerow(
                (
                    index,
                    name,
                    entry["hexcode"],
                    entry["group"],
                    entry["subgroups"],
                    entry["tags"],
                    base_concept(name, names),
                    int(entry["hexcode"] in skin_toned),
                    " ".join(present[index]),
                )
            )
    shutil.copy(openmoji / "LICENSE.txt", OUT / "LICENSE-openmoji.txt")
    for name in ("emoji-datasource-google", "emoji-datasource-twitter", "fluentui-emoji"):
        shutil.copy(folders[name] / "LICENSE", OUT / f"LICENSE-{name}.txt")
    print(f"{len(entries)} concepts in {len(STYLES)} styles -> {OUT}")


if __name__ == "__main__":
    sys.exit(main())
