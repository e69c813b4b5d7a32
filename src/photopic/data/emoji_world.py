"""The emoji world: about 1,900 named concepts drawn in seven styles, with splits that every bundled model respects.

The pictures are RGBA tiles of 64x64 pixels, kept as one lossless atlas a style beside one table of names. Everything is read
on first use and cached for the process; nothing is downloaded. ``recipes/emoji-world/build.py`` made the files.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from photopic.data import splits

TILE = 64  # pixels, both sides
STYLES = ("noto", "twemoji", "openmoji", "openmoji-black", "fluent-modern", "fluent-flat", "fluent-high-contrast")
LINE_ART = ("openmoji-black", "fluent-high-contrast")
HELD_OUT_STYLE = "fluent-modern"
TRAINING_STYLES = tuple(style for style in STYLES if style != HELD_OUT_STYLE)


@dataclass(frozen=True)
class Concept:
    """One named thing of the emoji world.

    Attributes:
        index: Position in the table and in every atlas.
        name: CLDR short name, the word a caption uses.
        code_point: Unicode code points in hexadecimal, joined by hyphens.
        group: Unicode group, such as ``animals-nature``.
        subgroup: Unicode subgroup, such as ``animal-mammal``.
        keywords: Search words of the concept.
        base: Name of the concept this one is a gender or direction variant of; its own name where it is none.
        has_skin_tones: Whether Unicode defines skin-tone variants. They are not shipped, so they cannot leak.
        styles: The styles that draw it.
        split: ``known``, ``train`` or ``held_out``; the same for every variant of one base.
    """

    index: int
    name: str
    code_point: str
    group: str
    subgroup: str
    keywords: tuple[str, ...]
    base: str
    has_skin_tones: bool
    styles: tuple[str, ...]
    split: str

    @property
    def is_variant(self) -> bool:
        """Whether this is a gender or direction variant of another concept."""
        return self.base != self.name


@cache
def concepts() -> tuple[Concept, ...]:
    """Every concept, in table order.

    Example:
        >>> concepts()[0].name
        'grinning face'
    """
    text = resources.files(__package__).joinpath("emoji", "concepts.csv").read_text(encoding="utf-8")
    return tuple(
        Concept(
            index=int(row["index"]),
            name=row["name"],
            code_point=row["code_point"],
            group=row["group"],
            subgroup=row["subgroup"],
            keywords=tuple(word.strip() for word in row["keywords"].split(",") if word.strip()),
            base=row["base"],
            has_skin_tones=row["skin_tones"] == "1",
            styles=tuple(row["styles"].split()),
            split=_split_of(row["base"], row["name"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def concept(name: str) -> Concept:
    """Look one concept up by its exact name.

    Raises:
        KeyError: If there is no such concept; the message lists near names.
    """
    found = _by_name().get(name)
    if found is None:
        near = [known for known in _by_name() if name.lower() in known.lower()][:5]
        raise KeyError(f"no concept is named {name!r}" + (f"; did you mean one of {near}?" if near else ""))
    return found


def select(*, split: str | None = None, style: str | None = None, group: str | None = None) -> tuple[Concept, ...]:
    """Concepts of one split, drawn in one style, from one group; each filter is optional."""
    return tuple(
        item
        for item in concepts()
        if (split is None or item.split == split)
        and (style is None or style in item.styles)
        and (group is None or item.group == group)
    )


def sprite(name: str, style: str) -> UInt8[np.ndarray, "64 64 4"]:
    """The picture of a concept in a style: RGBA, straight (not premultiplied) alpha.

    Raises:
        KeyError: If the concept is unknown or not drawn in that style.
    """
    item = concept(name)
    if style not in item.styles:
        raise KeyError(f"{name!r} is not drawn in style {style!r}; it is drawn in {', '.join(item.styles)}")
    row, column = divmod(item.index, _atlas(style).shape[1] // TILE)  # tiles lie row by row
    return _atlas(style)[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]


@cache
def _by_name() -> dict[str, Concept]:
    return {item.name: item for item in concepts()}


@cache
def _atlas(style: str) -> UInt8[np.ndarray, "height width 4"]:
    if style not in STYLES:
        raise KeyError(f"no style is named {style!r}; the styles are {', '.join(STYLES)}")
    with resources.files(__package__).joinpath("emoji", f"{style}.webp").open("rb") as file:
        pixels = np.array(Image.open(file).convert("RGBA"))
    pixels.flags.writeable = False  # shared by every caller
    return pixels


def _split_of(base: str, name: str) -> str:
    """Named lists first; every other base concept falls by the hash of its name, so that variants never part."""
    family = {base, name}
    if family & splits.SUBJECTS.keys():
        return "held_out"
    if family & splits.KNOWN:
        return "known"
    bucket = int.from_bytes(hashlib.sha256(base.encode()).digest()[:4], "big") % 100
    return "held_out" if bucket < splits.HELD_OUT_PERCENT else "train"
