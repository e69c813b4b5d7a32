"""Single emoji as pictures for classification: which concepts, which (concept, style) pairs are held out, how one is drawn.

The classifiers of ``recipes/emoji-classifiers`` learn from ``training_pairs``; what they are measured on is ``held_out_pairs`` (a
concept they know, in a training style they did not see it in) and the held-out style. Held-out concepts are in neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from photopic.data import emoji_world
from photopic.data.emoji_world import HELD_OUT_STYLE, STYLES, TILE, TRAINING_STYLES

HELD_OUT_PERCENT = 10  # of the pairs of concept and training style
MARGIN = 0.06  # of the side, around a drawn sprite

Pair = tuple[str, str]


@cache
def classes() -> tuple[str, ...]:
    """Names of the concepts that classifiers learn: not held out, no variants, drawn in all seven styles; in table order.

    The gender and direction variants of a concept look alike at the few pixels a small classifier reads.

    Example:
        >>> len(classes())
        1264
    """
    return tuple(
        item.name
        for item in emoji_world.concepts()
        if item.split != "held_out" and not item.is_variant and len(item.styles) == len(STYLES)
    )


@cache
def held_out_pairs() -> tuple[Pair, ...]:
    """The (concept, training style) pairs that no classifier sees: a fixed share, chosen by hash of both names.

    Example:
        >>> all(style != HELD_OUT_STYLE for _, style in held_out_pairs())
        True
    """
    return tuple(pair for pair in _all_pairs() if _bucket(pair) < HELD_OUT_PERCENT)


@cache
def training_pairs() -> tuple[Pair, ...]:
    """The (concept, training style) pairs that classifiers learn from.

    Example:
        >>> set(training_pairs()).isdisjoint(held_out_pairs())
        True
    """
    return tuple(pair for pair in _all_pairs() if _bucket(pair) >= HELD_OUT_PERCENT)


def held_out_style_pairs() -> tuple[Pair, ...]:
    """Every concept of ``classes`` in the style that nothing bundled was trained on."""
    return tuple((name, HELD_OUT_STYLE) for name in classes())


def pictures(
    pairs: Iterable[Pair], *, size: int = TILE, background: tuple[int, int, int] = (255, 255, 255)
) -> UInt8[np.ndarray, "n size size 3"]:
    """Draw each pair in the middle of a plain background.

    Args:
        pairs: (concept, style).
        size: Side in pixels.
        background: RGB, 0 to 255.

    Raises:
        KeyError: If a concept is unknown or not drawn in the style.

    Example:
        >>> pictures([("bear", "noto"), ("bear", "twemoji")], size=32).shape
        (2, 32, 32, 3)
    """
    drawn = [_picture(pair, size, background) for pair in pairs]
    return np.stack(drawn) if drawn else np.zeros((0, size, size, 3), np.uint8)


def _picture(pair: Pair, size: int, background: tuple[int, int, int]) -> UInt8[np.ndarray, "size size 3"]:
    rim = round(size * MARGIN)  # kept free on each side
    sprite = Image.fromarray(emoji_world.sprite(*pair)).resize((size - 2 * rim,) * 2, Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), background)
    canvas.alpha_composite(sprite, (rim, rim))
    return np.asarray(canvas.convert("RGB"))


def _all_pairs() -> list[Pair]:
    return [(name, style) for name in classes() for style in TRAINING_STYLES]


def _bucket(pair: Pair) -> int:
    # 0 to 99, the same everywhere
    return int.from_bytes(hashlib.sha256("/".join(pair).encode()).digest()[:4], "big") % 100
