"""Make docs/gallery.md again: run each command on the bundled models with small settings and keep what it shows.

python docs/gallery.py --work FOLDER    # a command whose text is in FOLDER is not run again
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from photopic.data.pictures import png_bytes
from photopic.data.scenes import Background, Placement, compose

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
WIDEST = 720  # pixels of a picture in the gallery
SMALL = 200  # pixels below which a picture is shown four times as large
LONGEST = 24  # lines of text that are shown


@dataclass(frozen=True)
class Shown:
    """One command of the gallery.

    Attributes:
        name: Of its heading and its picture.
        command: As typed.
        says: What to look for.
        picture: Pattern of the picture it writes; empty for text alone.
    """

    name: str
    command: str
    says: str
    picture: str = ""


GALLERY = (
    Shown(
        "locate attention",
        'photopic locate attention "a bear left of a tree on a red background" --steps 15 -o maps/',
        "Where the model looks while it draws: the picture, and over it the map of each word.",
        "maps/*-sheet.png",
    ),
    Shown(
        "locate neurons",
        "photopic locate neurons pandas/ --noun bear --binary -o bear.edit",
        "Five pictures of a thing become an edit of a few kilobytes that shuts the weights that tell it from other bears.",
    ),
    Shown("inspect", "photopic inspect bear.edit", "What is in the file: layers, bytes, how it was found."),
    Shown(
        "tune tip-adapter",
        "photopic tune tip-adapter emoji:held-out-style --shots 4 -o tip.edit",
        "A CLIP-like model learns classes from four pictures of each.",
    ),
    Shown(
        "tune located",
        "photopic tune located bear.edit pandas/ --steps 40 -o tuned.edit",
        "The weights that were found are trained on the pictures: nearer to the thing, and a larger file.",
    ),
    Shown(
        "generate",
        'photopic generate "a <mine> bear on a red background" --with tuned.edit -n 4 --steps 20 --seed 3 -o out/',
        "Pictures with the edit in force; without it the model is as before, to the byte.",
        "out/sheet-*.png",
    ),
    Shown("diff", "photopic diff bear.edit tuned.edit", "How two edit files differ; status 1, as they do."),
    Shown(
        "edit interference",
        "photopic edit interference bear.edit tuned.edit",
        "What edits share, before they are given together.",
    ),
    Shown(
        "verify", "photopic verify bear.edit", "That an edit does what it says and nothing else, checked on the model."
    ),
    Shown(
        "locate grad-cam",
        "photopic locate grad-cam emoji-resnet-64-0 clean/fox/ --class fox --class cat --layer resnet.encoder.stages.1.layers.0 "
        "--centred -o cam/",
        "Where a classifier sees a class: each picture, and over it the map of each class asked for.",
        "cam/*-sheet.png",
    ),
    Shown(
        "guard fit",
        "photopic guard fit emoji-resnet-64-0 clean/ -o emoji.guard",
        "A guard around a classifier, from clean pictures alone.",
    ),
    Shown(
        "guard check",
        "photopic guard check emoji.guard pandas/",
        "Which pictures of a folder to trust, with score, threshold and reason.",
    ),
    Shown(
        "train diffusion",
        "photopic train diffusion emoji-scenes:500 --size 16 --channels 16 --channels 32 --batch 16 --steps 300 "
        "--save-every 300 --measured 0 --run plain.run -o plain",
        "A small diffusion model of your own; with --run a sheet of samples with every checkpoint.",
        "plain.run/samples/*.png",
    ),
)


def pictures(folder: Path, things: dict[str, str], count: int, *, style: str, nested: bool) -> None:
    """Scenes of the emoji world as files: ``count`` of each thing, in a folder of its class where they are nested."""
    colours = ("red", "blue", "green", "yellow", "purple")
    for name, concept in things.items():
        home = folder / name if nested else folder
        home.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            where = (0.45 + 0.025 * (index % 5), 0.5)
            placement = Placement(concept, style, where, 0.6 + 0.03 * (index % 7))
            scene = compose([placement], Background(colours[index % len(colours)]), size=64)
            (home / f"{name}-{index}.png").write_bytes(png_bytes(scene.image))
            if not nested:
                caption = f"a bear on a {colours[index % len(colours)]} background"
                (home / f"{name}-{index}.txt").write_text(caption)


def run(shown: Shown, work: Path) -> str:
    """What a command prints, kept beside its outputs; its picture goes to the docs."""
    if not kept(shown, work).exists():
        words = [sys.executable, "-m", *shlex.split(shown.command)]
        done = subprocess.run(words, cwd=work, env=os.environ | {"COLUMNS": "100"}, capture_output=True, text=True)
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:
            raise SystemExit(f"{shown.command}: status {done.returncode}\n{done.stderr}")
        kept(shown, work).write_text(done.stdout)
    if shown.picture:
        with Image.open(sorted(work.glob(shown.picture))[-1]) as found:
            image = found.convert("RGB")
        if max(image.size) < SMALL:
            image = image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)
        image.thumbnail((WIDEST, WIDEST))
        image.save(picture_of(shown), quality=80, method=6)
    return kept(shown, work).read_text()


def kept(shown: Shown, work: Path) -> Path:
    """Where what it printed lies."""
    return work / f"{shown.name.replace(' ', '-')}.txt"


def picture_of(shown: Shown) -> Path:
    """Where its picture lies."""
    return IMAGES / f"gallery-{shown.name.replace(' ', '-')}.webp"


def section(shown: Shown, text: str) -> str:
    """Heading, what to look for, the command, its text and its picture."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    cut = [*lines[:LONGEST], f"... {len(lines) - LONGEST} more lines"] if len(lines) > LONGEST else lines
    parts = [f"## {shown.name}", shown.says, f"```sh\n{shown.command}\n```"]
    parts += ["```text\n" + "\n".join(cut) + "\n```"] if cut else []
    parts += [f"![{shown.says}](images/{picture_of(shown).name})"] if shown.picture else []
    return "\n\n".join(parts)


def main() -> None:
    """Run what has not run yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for pictures, edits and texts; made if missing"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no further command after so many")
    options = parser.parse_args()
    work, until = options.work.resolve(), time.monotonic() + 60 * options.minutes
    if not (work / "pandas").exists():
        pictures(work / "pandas", {"panda": "panda"}, 5, style="noto", nested=False)
        pictures(
            work / "clean",
            {each: each for each in ("bear", "cat", "dog", "fox")},
            12,
            style="fluent-modern",
            nested=True,
        )
    intro = (
        "# Gallery: what each command shows\n\nMade by `python docs/gallery.py --work FOLDER` on the bundled models, with settings "
        "small enough for two processor cores: at most a minute or two a command. `pandas/` are five pictures of a panda, "
        "which no bundled model has seen, with captions, and `clean/` twelve of each of four animals; the script draws both."
    )
    found = {each: run(each, work) for each in GALLERY if kept(each, work).exists() or time.monotonic() < until}
    text = "\n\n".join([intro, *(section(each, text) for each, text in found.items())]) + "\n"
    (ROOT / "docs/gallery.md").write_text(text, encoding="utf-8")
    size = sum(picture_of(each).stat().st_size for each in found if each.picture)
    print(f"docs/gallery.md: {len(found)} of {len(GALLERY)} commands, {size:,} bytes of pictures")


if __name__ == "__main__":
    main()
