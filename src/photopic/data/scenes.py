"""Captioned scenes composed from emoji: the exact picture, caption, masks, boxes, relations, counts and attributes.

A scene is a pure function of its arguments: the same seed gives the same bytes. ``sample_scene`` draws a layout and
``compose`` renders one, so that a caller who wants full control writes the ``Placement`` objects by hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from photopic.data import emoji_world

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (250, 215, 70),
    "green": (70, 165, 80),
    "teal": (30, 160, 160),
    "blue": (55, 105, 220),
    "purple": (130, 70, 180),
    "pink": (245, 150, 190),
    "brown": (125, 85, 55),
    "gray": (150, 150, 150),
    "white": (250, 250, 250),
    "black": (25, 25, 25),
}
TEXTURES = ("striped", "dotted", "checkered")
RELATIONS = ("left of", "right of", "above", "below")
NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
STYLE_WORDS = {style: style.replace("-", " ") for style in emoji_world.STYLES}


@dataclass(frozen=True)
class Background:
    """What lies behind the objects: ``flat``, ``gradient`` (top to bottom) or one of ``TEXTURES``.

    Attributes:
        colour: Name in ``COLOURS``; for a gradient the colour at the top.
        kind: ``flat``, ``gradient``, ``striped``, ``dotted`` or ``checkered``.
        second: Bottom colour of a gradient, else None.
    """

    colour: str
    kind: str = "flat"
    second: str | None = None

    @property
    def phrase(self) -> str:
        """The words a caption uses, such as ``striped red background``."""
        if self.kind == "gradient":
            return f"{self.colour} to {self.second} gradient background"
        return f"{self.colour} background" if self.kind == "flat" else f"{self.kind} {self.colour} background"


@dataclass(frozen=True)
class Placement:
    """One object of a scene.

    Attributes:
        concept: Name of the concept.
        style: Style it is drawn in.
        centre: (x, y) as fractions of the image side, 0 to 1 from the top left.
        side: Side of its square as a fraction of the image side, 0 to 1.
        tint: Name in ``COLOURS`` the drawing is tinted with, or None.
    """

    concept: str
    style: str
    centre: tuple[float, float]
    side: float
    tint: str | None = None


@dataclass(frozen=True)
class Scene:
    """A rendered scene and everything true about it.

    Attributes:
        image: RGB, (size, size, 3).
        caption: One sentence naming objects, relation and background.
        placements: The objects in drawing order; later ones cover earlier ones.
        masks: Visible pixels of each object, (objects, size, size).
        boxes: Boxes of the visible pixels in pixels (left, top, right, bottom; right and bottom exclusive), (objects, 4).
        background: The background.
        relations: (index, relation, index) of every ordered pair that is clearly apart along an axis.
    """

    image: UInt8[np.ndarray, "size size 3"]
    caption: str
    placements: tuple[Placement, ...]
    masks: Bool[np.ndarray, "objects size size"]
    boxes: Float[np.ndarray, "objects 4"]
    background: Background
    relations: tuple[tuple[int, str, int], ...]

    @property
    def counts(self) -> dict[str, int]:
        """How often each concept occurs."""
        return dict(Counter(item.concept for item in self.placements))

    @property
    def attributes(self) -> tuple[dict[str, str], ...]:
        """Style and, where there is one, tint of each object."""
        return tuple({"style": item.style} | ({"colour": item.tint} if item.tint else {}) for item in self.placements)


@dataclass(frozen=True)
class SceneOptions:
    """What ``sample_scene`` draws from."""

    concepts: tuple[str, ...]  # names to draw objects from
    styles: tuple[str, ...] = emoji_world.TRAINING_STYLES
    size: int = 64  # pixels
    objects: tuple[float, float, float, float] = (0.5, 0.3, 0.1, 0.1)  # probability of 1, 2, 3, 4 objects
    backgrounds: tuple[float, float, float] = (0.6, 0.2, 0.2)  # probability of flat, gradient, texture
    style_named: float = 0.5  # probability that the caption names the style
    tinted: float = 0.0  # probability that an object is tinted and the caption says so
    repeated: float = 0.0  # probability that a scene of several objects repeats one concept, so that it can be counted
    sides: tuple[float, float] | None = (
        None  # range of sides, as fractions of the picture's, of objects placed anywhere
    )


def sample_scene(options: SceneOptions, seed: int | Sequence[int]) -> Scene:
    """Draw one scene.

    Args:
        options: What to draw from.
        seed: Any seed ``numpy.random.default_rng`` takes; the same seed gives the same bytes.

    Example:
        >>> sample_scene(SceneOptions(concepts=("cat",), objects=(1.0, 0.0, 0.0, 0.0)), seed=1).counts
        {'cat': 1}
    """
    if not options.concepts:
        raise ValueError("SceneOptions.concepts is empty: name at least one concept")
    rng = np.random.default_rng(seed)
    count = int(rng.choice(4, p=np.divide(options.objects, sum(options.objects)))) + 1
    style = str(rng.choice(options.styles))
    if count > 1 and rng.random() < options.repeated:
        names = [str(rng.choice(options.concepts))] * count
    else:
        names = [str(name) for name in rng.choice(options.concepts, count, replace=len(options.concepts) < count)]
    spots = scattered(count, options.sides, rng) if options.sides else _spots(count, rng)
    placements = []
    for name, (centre, side) in zip(names, spots, strict=True):
        drawn_in = style if style in emoji_world.concept(name).styles else emoji_world.concept(name).styles[0]
        tint = None
        if rng.random() < options.tinted and not set(name.split()) & COLOURS.keys():
            tint = str(rng.choice([colour for colour in COLOURS if colour not in ("white", "black", "gray")]))
        placements.append(Placement(name, drawn_in, centre, side, tint))
    background = _sample_background(options, rng)
    named = rng.random() < options.style_named
    return compose(placements, background, size=options.size, name_style=bool(named))


def compose(
    placements: Sequence[Placement], background: Background, *, size: int = 64, name_style: bool = False
) -> Scene:
    """Render placements over a background, in order, later over earlier.

    Args:
        placements: 1 to 4 objects.
        background: What lies behind.
        size: Side of the picture in pixels.
        name_style: Whether the caption names each object's style.

    Raises:
        KeyError: If a concept, style or colour does not exist.
    """
    canvas = render_background(background, size)
    masks = np.zeros((len(placements), size, size), bool)
    for index, item in enumerate(placements):
        colour, alpha, (top, left) = render_object(item, size)
        height, width = alpha.shape
        window = np.s_[top : top + height, left : left + width]
        canvas[window] = colour + canvas[window] * (1 - alpha[..., None])  # premultiplied over
        solid = alpha > 0.5
        masks[(slice(None, index), *window)] &= ~solid
        masks[(index, *window)] = solid
    boxes = np.stack([_box(mask) for mask in masks]) if len(placements) else np.zeros((0, 4))
    relations = _relations(boxes, size)
    return Scene(
        image=(canvas * 255 + 0.5).astype(np.uint8),
        caption=caption_of(placements, background, relations, name_style=name_style),
        placements=tuple(placements),
        masks=masks,
        boxes=boxes,
        background=background,
        relations=relations,
    )


def caption_of(
    placements: Sequence[Placement],
    background: Background,
    relations: Sequence[tuple[int, str, int]] = (),
    *,
    name_style: bool = False,
) -> str:
    """The caption of a scene, such as ``a bear left of a noto cat on a striped red background``."""
    where = f"on {with_article(background.phrase)}"
    names = [item.concept for item in placements]
    if len(placements) > 1 and len(set(names)) == 1:
        subject = f"{NUMBER_WORDS[len(names)]} {plural(names[0])}"
        return f"{subject} {where}"
    phrases = [_noun_phrase(item, name_style) for item in placements]
    if len(phrases) == 2 and relations:
        first, relation, second = relations[0]
        return f"{phrases[first]} {relation} {phrases[second]} {where}"
    listed = ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]
    return f"{listed} {where}"


def with_article(words: str) -> str:
    """``bear`` -> ``a bear``, ``orange background`` -> ``an orange background``."""
    vowel = words[0].lower() in "aeiou" and not words.startswith(("uni", "one ", "U"))
    return f"{'an' if vowel else 'a'} {words}"


def with_prefix(caption: str, noun: str, token: str) -> str:
    """Put a new token before a noun: ``a bear on a red background`` -> ``a <mine> bear on a red background``.

    The noun as a whole word comes before the noun inside another word; case does not matter.
    """
    word = re.escape(noun)
    found = re.search(rf"\b{word}\b", caption, re.IGNORECASE) or re.search(word, caption, re.IGNORECASE)
    if not found:
        raise ValueError(f"{noun!r} is not in the caption {caption!r}")
    return f"{caption[: found.start()]}{token} {caption[found.start() :]}"


def render_background(background: Background, size: int) -> Float[np.ndarray, "size size 3"]:
    """A background alone, as RGB in 0 to 1."""
    for name in filter(None, (background.colour, background.second)):
        if name not in COLOURS:
            raise KeyError(f"no background colour is named {name!r}; the colours are {', '.join(COLOURS)}")
    colour = np.array(COLOURS[background.colour]) / 255
    canvas = np.broadcast_to(colour, (size, size, 3)).copy()
    rows, columns = np.mgrid[:size, :size] * (64 / size)  # textures keep their scale relative to the picture
    if background.kind == "gradient":
        if background.second is None:
            raise ValueError("a gradient background needs its second colour")
        share = np.linspace(0, 1, size)[:, None, None]
        canvas = (1 - share) * colour + share * np.array(COLOURS[background.second]) / 255
        canvas = np.broadcast_to(canvas, (size, size, 3)).copy()
    elif background.kind in TEXTURES:
        marks = {
            "striped": (rows + columns) % 16 < 8,
            "dotted": (rows % 16 - 8) ** 2 + (columns % 16 - 8) ** 2 < 16,
            "checkered": (rows // 8 + columns // 8) % 2 == 0,
        }[background.kind]
        lighter = colour + (0.35 if colour.mean() < 0.6 else -0.25) * (1 if colour.mean() < 0.6 else colour)
        canvas[marks] = np.clip(lighter, 0, 1)
    elif background.kind != "flat":
        raise KeyError(f"no background kind is named {background.kind!r}; use flat, gradient, {', '.join(TEXTURES)}")
    return canvas


def _spots(count: int, rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Centres and sides that keep objects apart: one in the middle, two along an axis, three or four in quarters."""
    if count == 1:
        side = rng.uniform(0.66, 0.86)
        slack = (1 - side) / 2 * 0.8
        return [((0.5 + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack)), side)]
    if count == 2:
        spots = []
        across = rng.random() < 0.5
        flipped = rng.random() < 0.5
        for place in (0.26, 0.74):
            along, aside = place + rng.uniform(-0.02, 0.02), 0.5 + rng.uniform(-0.14, 0.14)
            spots.append(((along, aside) if across else (aside, along), rng.uniform(0.42, 0.48)))
        return spots[::-1] if flipped else spots
    quarters = [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]
    picked = rng.permutation(4)[:count]
    return [
        (
            (quarters[k][0] + rng.uniform(-0.03, 0.03), quarters[k][1] + rng.uniform(-0.03, 0.03)),
            rng.uniform(0.38, 0.44),
        )
        for k in picked
    ]


def scattered(
    count: int, sides: tuple[float, float], rng: np.random.Generator
) -> list[tuple[tuple[float, float], float]]:
    """Centres anywhere and sides uniform in their logarithm, redrawn until the squares hardly touch."""
    low, high = sides
    while True:
        side = np.exp(rng.uniform(np.log(low), np.log(high), count))
        centre = rng.uniform(side[:, None] / 2, 1 - side[:, None] / 2, (count, 2))
        gap = np.abs(centre[:, None] - centre[None]).max(
            -1
        )  # (count, count), along the axis where they are farther apart
        touching = gap < 0.9 * (side[:, None] + side[None]) / 2  # a drawing leaves a margin in its square
        if not touching[~np.eye(count, dtype=bool)].any():
            return [((float(x), float(y)), float(s)) for (x, y), s in zip(centre, side, strict=True)]
        high *= 0.98  # four large squares never fit
        low = min(low, high)


def _sample_background(options: SceneOptions, rng: np.random.Generator) -> Background:
    kind = ("flat", "gradient", "texture")[
        int(rng.choice(3, p=np.divide(options.backgrounds, sum(options.backgrounds))))
    ]
    colour, second = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    if kind == "gradient":
        return Background(colour, "gradient", second)
    return Background(colour, kind if kind == "flat" else str(rng.choice(TEXTURES)))


def render_object(
    item: Placement, size: int
) -> tuple[Float[np.ndarray, "height width 3"], Float[np.ndarray, "height width"], tuple[int, int]]:
    """Premultiplied colour, alpha and (top, left) of an object, clipped to the picture."""
    tile = emoji_world.sprite(item.concept, item.style)
    if item.tint is not None:
        tile = _tinted(tile, item.tint)
    side = max(1, round(item.side * size))
    scaled = Image.fromarray(tile, "RGBA").convert("RGBa").resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(scaled, np.float64) / 255
    left, top = (round(centre * size - side / 2) for centre in item.centre)
    cut = np.s_[max(0, -top) : max(0, min(side, size - top)), max(0, -left) : max(0, min(side, size - left))]
    pixels = pixels[cut]
    return pixels[..., :3], pixels[..., 3], (max(0, top), max(0, left))


def _tinted(tile: UInt8[np.ndarray, "64 64 4"], tint: str) -> UInt8[np.ndarray, "64 64 4"]:
    """Blend towards the tint, keeping light and dark: half the old colour, half the tint times the brightness."""
    rgb = tile[..., :3].astype(np.float64)
    brightness = rgb.mean(-1, keepdims=True) / 255
    mixed = 0.3 * rgb + 0.7 * np.array(COLOURS[tint]) * (0.4 + 0.6 * brightness)
    return np.concatenate([mixed.clip(0, 255).astype(np.uint8), tile[..., 3:]], -1)


def _box(mask: Bool[np.ndarray, "size size"]) -> Float[np.ndarray, "4"]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def _relations(boxes: Float[np.ndarray, "objects 4"], size: int) -> tuple[tuple[int, str, int], ...]:
    found = []
    for first in range(len(boxes)):
        for second in range(len(boxes)):
            if first == second or not boxes[first].any() or not boxes[second].any():
                continue
            gap = (boxes[second, :2] + boxes[second, 2:] - boxes[first, :2] - boxes[first, 2:]) / 2
            axis = int(abs(gap[1]) > abs(gap[0]))
            if abs(gap[axis]) > 0.25 * size:
                relation = RELATIONS[2 * axis + int(gap[axis] < 0)]
                found.append((first, relation, second))
    return tuple(found)


def _noun_phrase(item: Placement, name_style: bool) -> str:
    words = " ".join(filter(None, (STYLE_WORDS[item.style] if name_style else "", item.tint or "", item.concept)))
    return with_article(words)


def plural(noun: str) -> str:
    """The plural captions use."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
