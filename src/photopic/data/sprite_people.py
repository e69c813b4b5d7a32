"""Sprite people: simple figures in emoji clothes, each with key points and masks, so that a garment can be put on another figure.

Figures are drawn here from ellipses and lines; what they wear is emoji artwork, bent to the figure by the same key points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.collage import Collage, Points, aligned, laid_on
from photopic.data.emoji_world import TILE, sprite
from photopic.data.pixels import from_pixels

PERSON = "sprite-person"
SLEEVED = {
    "t-shirt": True,
    "woman’s clothes": True,
    "running shirt": False,
    "safety vest": False,
}  # garment: has it sleeves
STYLES = ("noto", "twemoji", "fluent-flat")  # that people wear; fluent-modern is new to whoever learnt from them
FINE = 4  # times the side that figures are drawn at
SKINS = ("#f3d0b0", "#d9a679", "#a9714b", "#6b4329")
HAIRS = ("#2b1b12", "#6a4220", "#c9a24b", "#555555", "#8a2f1e")
GROUNDS = ("#cfe3f2", "#e8e2d0", "#d6ecd2", "#e6d6ea", "#f2d9d0", "#c9cdd6")
TROUSERS = ("#2d3350", "#5a4632", "#30302f", "#35553d")


@dataclass(frozen=True, eq=False)
class SpritePerson:
    """A figure.

    Attributes:
        picture: Dressed, RGB.
        bare: The same in grey underwear.
        body: Where torso and upper arms are, which an old garment may cover.
        front: Hands and lower arms, which lie before garments.
        keypoints: Of the figure, by name, shares of the side.
        garment: Its name and style.
    """

    picture: UInt8[np.ndarray, "side side 3"]
    bare: UInt8[np.ndarray, "side side 3"]
    body: Bool[np.ndarray, "side side"]
    front: Bool[np.ndarray, "side side"]
    keypoints: Points
    garment: tuple[str, str]


def sprite_person(seed: tuple[int, int], side: int = 64, *, garment: tuple[str, str] | None = None) -> SpritePerson:
    """Draw one figure; the same seed draws the same one, whatever it wears.

    Args:
        seed: Of the set, and the figure's number in it.
        side: Of the picture in pixels.
        garment: Name and style; None draws one of the four in one of the styles, in a colour of its own.

    Example:
        >>> person = sprite_person((0, 1))
        >>> person.picture.shape, sorted(person.keypoints)[:2]
        ((64, 64, 3), ['left hem', 'left shoulder'])
    """
    rng = np.random.default_rng((*seed, 20))
    x, shoulder, top, hem = (middle + rng.uniform(-0.015, 0.015) for middle in (0.5, 0.15, 0.4, 0.72))
    waist, arm = shoulder * rng.uniform(0.85, 0.95), rng.uniform(0.6, 0.8)  # arm: angle from straight down
    options = (SKINS, HAIRS, GROUNDS, TROUSERS)
    skin, hair, ground, trousers = (_rgb(colours[rng.integers(len(colours))]) for colours in options)
    name, style = list(SLEEVED)[rng.integers(len(SLEEVED))], STYLES[rng.integers(len(STYLES))]
    turn = 32 * int(rng.integers(8))  # of 256 hues
    elbow = np.array([np.sin(arm), np.cos(arm)]) * 0.17
    points = {
        "neck": (x, top - 0.01), "left shoulder": (x - shoulder, top + 0.02), "right shoulder": (x + shoulder, top + 0.02),
        "left sleeve": (x - shoulder - 0.6 * elbow[0], top + 0.02 + 0.6 * elbow[1]),
        "right sleeve": (x + shoulder + 0.6 * elbow[0], top + 0.02 + 0.6 * elbow[1]),
        "left hem": (x - waist - 0.01, hem), "right hem": (x + waist + 0.01, hem),
    }  # fmt: skip
    bare, body, front = _figure(side, points, elbow, (skin, hair, ground, trousers))
    name, style = garment or (name, style)
    art = sprite(name, style)
    if garment is None:
        art = _recoloured(art, turn)
    dressed = _dressed(bare, art, garment_points(name, style), points, front)
    return SpritePerson(dressed, bare, body, front, points, (name, style))


def garment_points(name: str, style: str) -> Points:
    """Key points of a garment's artwork, shares of its sides; those without sleeves have none there.

    Raises:
        DataError: If the garment is none that figures wear.

    Example:
        >>> sorted(garment_points("safety vest", "noto"))
        ['left hem', 'left shoulder', 'neck', 'right hem', 'right shoulder']
    """
    if name not in SLEEVED:
        raise DataError(
            f"garment: expected one of {', '.join(SLEEVED)}, found {name!r}; give its key points with your own collage"
        )
    points = {
        "neck": (0.5, 0.08), "left shoulder": (0.26, 0.05), "right shoulder": (0.74, 0.05),
        "left hem": (0.06, 0.97), "right hem": (0.94, 0.97),
    }  # fmt: skip  # shares of the box around the artwork
    if SLEEVED[name]:
        points |= {
            "left sleeve": (0.03, 0.38),
            "right sleeve": (0.97, 0.38),
            "left hem": (0.24, 0.97),
            "right hem": (0.76, 0.97),
        }
    rows, columns = np.nonzero(sprite(name, style)[..., 3] > 127)
    (left, width), (top, height) = ((each.min() / TILE, np.ptp(each) / TILE) for each in (columns, rows))
    return {key: (left + width * across, top + height * down) for key, (across, down) in points.items()}


def sprite_people(count: int, *, seed: int, side: int = 64) -> Float[Tensor, "count 3 side side"]:
    """Dressed figures to fit a generator to, in -1 to 1.

    Example:
        >>> sprite_people(2, seed=0, side=32).shape
        torch.Size([2, 3, 32, 32])
    """
    return from_pixels(np.stack([sprite_person((seed, number), side).picture for number in range(count)]))


def sprite_collage(
    seed: tuple[int, int], side: int = 64, *, garment: tuple[str, str] = ("t-shirt", "fluent-modern")
) -> Collage:
    """A figure with a garment laid on it that it did not wear, which may be of a style that no figure wears.

    Args:
        seed: Of the figure.
        side: Of the picture in pixels.
        garment: Name and style.

    Raises:
        DataError: If the garment is none that figures wear.

    Example:
        >>> sprite_collage((0, 1)).inner.any()
        tensor(True)
    """
    person, piece = sprite_person(seed, side), garment_points(*garment)
    worn = {name: person.keypoints[name] for name in piece}
    picture = from_pixels(person.picture[None])[0]
    old = np.abs(person.picture.astype(int) - person.bare).max(-1) > 8  # what was worn must not show
    return laid_on(picture, sprite(*garment), piece, worn, hidden=old, front=person.front)


def read_sprite_collage(word: str, side: int) -> Collage:
    """``sprite-person``, or ``sprite-person:3`` for the figure of that number.

    Raises:
        DataError: If what follows is no number.
    """
    number = word.partition(":")[2] or "0"
    if not number.isdigit():
        raise DataError(f"{word}: expected {PERSON} or {PERSON}:3, found {number!r} for the figure's number")
    return sprite_collage((1, int(number)), side)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def _figure(side: int, points: Points, elbow: np.ndarray, colours: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The figure in underwear, where torso and upper arms are, and where the hands are."""
    skin, hair, ground, trousers = colours
    big = side * FINE
    layers = [Image.new("RGB", (big, big), ground), Image.new("L", (big, big)), Image.new("L", (big, big))]
    draws = [ImageDraw.Draw(each) for each in layers]

    def at(*pairs: Any) -> list[tuple[float, float]]:
        return [(each[0] * big, each[1] * big) for each in pairs]

    (x, top), (left, _), (right, _) = points["neck"], points["left shoulder"], points["right shoulder"]
    (hem_left, hem), (hem_right, _) = points["left hem"], points["right hem"]
    draws[0].rectangle(at((hem_left + 0.01, hem - 0.06), (hem_right - 0.01, 1.0)), fill=trousers)
    draws[0].rectangle(at((x - 0.012, hem + 0.04), (x + 0.012, 1.0)), fill=ground)
    torso = at((left + 0.02, top), (right - 0.02, top), (hem_right - 0.01, hem), (hem_left + 0.01, hem))
    for draw, fill in ((draws[0], (205, 205, 205)), (draws[1], 255)):
        draw.polygon(torso, fill=fill)
    width = int(0.075 * big)
    for sign, name in ((-1, "left shoulder"), (1, "right shoulder")):
        start = np.array(points[name]) + np.array([-sign * 0.03, 0.02])
        middle = start + elbow * [sign, 1]
        end = middle + elbow * [0.4 * sign, 0.9]
        for draw, fill in ((draws[0], skin), (draws[1], 255)):
            draw.line(at(start, middle), fill=fill, width=width, joint="curve")
            draw.ellipse(at(start - 0.037, start + 0.037), fill=fill)
        for draw, fill in ((draws[0], skin), (draws[2], 255)):
            draw.line(at(middle, end), fill=fill, width=width, joint="curve")
            draw.ellipse(at(end - 0.045, end + 0.045), fill=fill)
    draws[0].rectangle(at((x - 0.04, top - 0.06), (x + 0.04, top + 0.03)), fill=skin)
    draws[0].ellipse(at((x - 0.14, top - 0.35), (x + 0.14, top - 0.05)), fill=hair)
    draws[0].ellipse(at((x - 0.115, top - 0.29), (x + 0.115, top - 0.03)), fill=skin)
    for sign in (-1, 1):
        draws[0].ellipse(
            at((x + sign * 0.045 - 0.015, top - 0.18), (x + sign * 0.045 + 0.015, top - 0.15)), fill=(20, 20, 20)
        )
    draws[0].line(at((x - 0.04, top - 0.085), (x + 0.04, top - 0.085)), fill=(150, 50, 50), width=max(1, big // 64))
    small = [np.asarray(each.resize((side, side), Image.Resampling.BOX)) for each in layers]
    return small[0], small[1] > 127, small[2] > 127


def _dressed(bare: np.ndarray, art: np.ndarray, own: Points, points: Points, front: np.ndarray) -> np.ndarray:
    bent = aligned(art, own, {key: points[key] for key in own}, len(bare))
    alpha = np.where(front, 0.0, bent[..., 3])[..., None]
    found: np.ndarray = (255 * (bent[..., :3] * alpha) + bare * (1 - alpha)).round().astype(np.uint8)
    return found


def _recoloured(art: np.ndarray, turn: int) -> np.ndarray:
    """The same artwork with its hues turned."""
    hues = np.array(Image.fromarray(art[..., :3]).convert("HSV"))
    hues[..., 0] += np.uint8(turn)
    return np.concatenate([np.array(Image.fromarray(hues, "HSV").convert("RGB")), art[..., 3:]], -1)
