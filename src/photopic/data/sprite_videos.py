"""Sprite videos: emoji that slide, grow, spin, appear or bounce, with exact classes, names and captions.

A class is an object with a motion, "bear sliding left". Half of the motions are another motion played backwards, so that single
frames do not tell the two apart: ``reversed_clips`` is exact. What does not belong to the class is random: art style, size,
place, speed, background, and often a second object with a motion of its own. The second object is of the same split, so one
example does not say which of the two is meant; a name does.

Objects are parted into training, validation and test, so these share no class: motions are common to all, objects to none.
Every object is a known one, which bundled models have seen as still pictures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.data import emoji_world, scenes
from photopic.data.clips import SPLITS, Clips
from photopic.data.emoji_world import LINE_ART, TILE, TRAINING_STYLES

REVERSED = {  # each motion and what it is when played backwards
    "sliding left": "sliding right",
    "sliding up": "sliding down",
    "growing": "shrinking",
    "appearing": "vanishing",
    "turning left": "turning right",
    "bouncing": "bouncing",
    "shaking": "shaking",
}
REVERSED |= {backwards: forwards for forwards, backwards in REVERSED.items()}
MOTIONS = tuple(REVERSED)
OBJECTS = {"train": 48, "validation": 12, "test": 16}  # objects of each split
GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
COLOURED = tuple(style for style in TRAINING_STYLES if style not in LINE_ART)  # black lines do not show on every ground
CHUNK = 64  # clips drawn at a time


class Action(NamedTuple):
    """A class: what is seen, and how it moves."""

    thing: str
    motion: str

    @property
    def name(self) -> str:
        """``bear sliding left``."""
        return f"{self.thing} {self.motion}"


@dataclass(frozen=True)
class SpriteVideos:
    """How clips are drawn."""

    frames: int = 8  # of a clip
    size: int = 64  # pixels, both sides
    clutter: float = 0.7  # chance of a second object that moves in its own way
    styles: tuple[str, ...] = COLOURED  # art styles, one a clip

    def __post_init__(self) -> None:
        if self.frames < 1 or self.size < 8 or not 0 <= self.clutter <= 1 or not self.styles:
            raise DataError(
                f"sprite videos: expected 1 or more frames, 8 or more pixels, clutter in 0 to 1 and a style, found {self}"
            )


@cache
def objects(split: str) -> tuple[str, ...]:
    """Names of the objects of a split; no object is in two.

    Raises:
        DataError: If there is no such split.

    Example:
        >>> set(objects("validation")).isdisjoint(objects("test"))
        True
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected {', '.join(SPLITS)}")
    start = sum(OBJECTS[other] for other in SPLITS[: SPLITS.index(split)])
    return _objects()[start : start + OBJECTS[split]]


@cache
def actions(split: str) -> tuple[Action, ...]:
    """The classes of a split: each of its objects with every motion.

    Example:
        >>> actions("test")[0].motion
        'sliding left'
    """
    return tuple(Action(thing, motion) for thing in objects(split) for motion in MOTIONS)


def sprite_clips(
    split: str,
    each: int,
    *,
    seed: int = 0,
    config: SpriteVideos = SpriteVideos(),
    chosen: Sequence[Action] | None = None,
) -> Clips:
    """Draw clips of a split.

    Args:
        split: ``train``, ``validation`` or ``test``.
        each: Clips a class.
        seed: The same seed draws the same; a clip depends on its class and number alone.
        config: How clips are drawn.
        chosen: Some classes of the split; None means all.

    Raises:
        DataError: If there is no such split, or a class is not of it.

    Example:
        >>> sprite_clips("test", 1, chosen=actions("test")[:2], config=SpriteVideos(frames=3, size=32)).videos.shape
        (2, 3, 32, 32, 3)
    """
    classes = actions(split) if chosen is None else tuple(chosen)
    known = {action: number for number, action in enumerate(actions(split))}
    for action in classes:
        if action not in known:
            raise DataError(f"class {action.name!r}: expected one of the split {split}, found another")
    labels = np.repeat(np.arange(len(classes)), each)
    plans = [
        _plan(classes[label], split, config, [seed, SPLITS.index(split), known[classes[label]], number % each])
        for number, label in enumerate(labels.tolist())
    ]
    videos = np.concatenate([_draw(plans[start : start + CHUNK], config) for start in range(0, len(plans), CHUNK)])
    captions = tuple(f"{scenes.with_article(plan.moving[-1].action.name)} on {plan.ground}" for plan in plans)
    groups = tuple(objects(split).index(action.thing) for action in classes)
    return Clips(videos, labels, tuple(action.name for action in classes), captions, groups)


def reversed_clips(clips: Clips) -> Clips:
    """Every clip played backwards, with the class it then is.

    Raises:
        DataError: If the reverse of a class is not among the names.

    Example:
        >>> reversed_clips(sprite_clips("test", 1, chosen=actions("test")[:8])).names[0]  # doctest: +SKIP
        'butterfly sliding left'
    """
    number = {name: place for place, name in enumerate(clips.names)}
    turned = []
    for name in clips.names:
        motion = next(motion for motion in MOTIONS if name.endswith(" " + motion))
        other = name.removesuffix(motion) + REVERSED[motion]
        if other not in number:
            raise DataError(
                f"class {name!r}: its reverse {other!r} is not among the {len(clips.names)} classes; add it"
            )
        turned.append(number[other])
    return Clips(np.asarray(clips.videos)[:, ::-1], np.array(turned)[clips.labels], clips.names, groups=clips.groups)


class Pose(NamedTuple):
    """Where and how a sprite is drawn; every field a number, or one a frame."""

    x: np.ndarray  # centre, 0 to 1 of the side
    y: np.ndarray
    side: np.ndarray  # of the side
    angle: np.ndarray  # radians, anticlockwise
    opacity: np.ndarray  # 0 to 1


class _Sprite(NamedTuple):
    action: Action
    style: str
    pose: Pose


class _Plan(NamedTuple):
    moving: tuple[_Sprite, ...]  # in drawing order, the object of the class last
    background: scenes.Background
    ground: str


def _plan(action: Action, split: str, config: SpriteVideos, seed: Sequence[int]) -> _Plan:
    rng = np.random.default_rng(seed)
    style = str(rng.choice(config.styles))
    moving = []
    if rng.random() < config.clutter:
        others = [thing for thing in objects(split) if thing != action.thing]
        other = Action(str(rng.choice(others)), str(rng.choice(MOTIONS)))
        moving.append(_Sprite(other, style, _pose(other.motion, config.frames, rng)))
    moving.append(_Sprite(action, style, _pose(action.motion, config.frames, rng)))
    background = _background(rng)
    return _Plan(tuple(moving), background, scenes.with_article(background.phrase))


def _pose(motion: str, frames: int, rng: np.random.Generator) -> Pose:
    """A motion with its own place, size and speed; one played backwards is drawn from its partner's."""
    first, last = rng.uniform(0, 0.2), rng.uniform(0.8, 1)  # how much of the motion is seen: its speed
    time = np.linspace(first, last, frames) if frames > 1 else np.array([(first + last) / 2])
    backwards = motion not in _PROGRAMS
    place = rng.uniform(0.3, 0.7, 2)
    side = rng.uniform(0.42, 0.6)
    tilt = rng.uniform(-0.2, 0.2)
    swing = rng.uniform(0, 1)
    still = np.ones(frames)
    pose = Pose(place[0] * still, place[1] * still, side * still, tilt * still, still)
    moved = _PROGRAMS[REVERSED[motion] if backwards else motion](pose, time, swing)
    return Pose(*(each[::-1] for each in moved)) if backwards else moved


def _waves(time: np.ndarray, swing: float) -> np.ndarray:
    return 2 * math.pi * (1.5 + swing) * time


_PROGRAMS: dict[str, Callable[[Pose, np.ndarray, float], Pose]] = {  # time runs from 0 to 1
    "sliding left": lambda pose, time, swing: pose._replace(x=0.85 - 0.7 * time),
    "sliding up": lambda pose, time, swing: pose._replace(y=0.85 - 0.7 * time),
    "growing": lambda pose, time, swing: pose._replace(side=0.15 + 0.75 * time),
    "appearing": lambda pose, time, swing: pose._replace(opacity=(1.5 * time - 0.25).clip(0, 1)),
    "turning left": lambda pose, time, swing: pose._replace(angle=pose.angle + 1.2 * math.pi * time),
    "bouncing": lambda pose, time, swing: pose._replace(y=0.75 - 0.5 * abs(np.sin(_waves(time, swing)))),
    "shaking": lambda pose, time, swing: pose._replace(angle=0.7 * np.sin(_waves(time, swing))),
}


def _draw(plans: Sequence[_Plan], config: SpriteVideos) -> UInt8[np.ndarray, "n t size size 3"]:
    grounds = np.stack([_ground(plan.background, config.size) for plan in plans])  # (n, size, size, 3)
    canvas = torch.from_numpy(grounds).permute(0, 3, 1, 2)[:, None].repeat(1, config.frames, 1, 1, 1)  # (n, t, 3, h, w)
    for layer in (0, 1):  # the second object, then the object of the class
        rows = [row for row, plan in enumerate(plans) if layer or len(plan.moving) == 2]
        if rows:
            drawn = _drawn([plans[row].moving[-1 if layer else 0] for row in rows], config)
            canvas[rows] = drawn[:, :, :3] + (1 - drawn[:, :, 3:]) * canvas[rows]  # premultiplied over
    return (canvas.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()


def _drawn(sprites: Sequence[_Sprite], config: SpriteVideos) -> Float[Tensor, "n t 4 size size"]:
    """Sprites on transparent frames, turned, scaled and moved by one sampling."""
    count, frames = len(sprites), config.frames
    x, y, side, angle, opacity = (
        torch.from_numpy(np.stack([getattr(each.pose, field) for each in sprites])).float() for field in Pose._fields
    )  # (n, t) each
    cos, sin = angle.cos() / side, angle.sin() / side
    x, y = 2 * x - 1, 2 * y - 1  # as affine_grid counts: -1 to 1
    matrix = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], -1).view(-1, 2, 3)
    art = torch.stack([_sprite(each.action.thing, each.style) for each in sprites])  # (n, 4, tile, tile)
    grid = F.affine_grid(matrix, [count * frames, 4, config.size, config.size], align_corners=False)
    drawn = F.grid_sample(art.repeat_interleave(frames, 0), grid, align_corners=False)
    return drawn.view(count, frames, 4, config.size, config.size) * opacity[..., None, None, None]


def _background(rng: np.random.Generator) -> scenes.Background:
    colour, second = (str(name) for name in rng.choice(list(scenes.COLOURS), 2, replace=False))
    kind = str(rng.choice(["flat", "flat", "gradient", *scenes.TEXTURES]))
    return scenes.Background(colour, kind, second if kind == "gradient" else None)


@cache
def _ground(background: scenes.Background, size: int) -> Float[np.ndarray, "size size 3"]:
    return scenes.render_background(background, size).astype(np.float32)


@cache
def _sprite(thing: str, style: str) -> Float[Tensor, "4 tile tile"]:
    """Premultiplied, softened to about the size it is drawn at."""
    picture = Image.fromarray(emoji_world.sprite(thing, style)).convert("RGBa")
    small = picture.resize((TILE * 3 // 4,) * 2, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


@cache
def _objects() -> tuple[str, ...]:
    """Known concepts of solid things in the order of the hash of their names: the first are training, and so on."""
    known = [item.name for item in emoji_world.select(split="known") if item.group in GROUPS and not item.is_variant]
    drawn = [name for name in known if set(emoji_world.STYLES) == set(emoji_world.concept(name).styles)]
    return tuple(sorted(drawn, key=lambda name: hashlib.sha256(f"sprite videos {name}".encode()).digest()))
