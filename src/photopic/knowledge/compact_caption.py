"""The short form of a bag of concepts that the bundled captioner writes: one word for each thing that can be said of a scene.

    noto flat red owl blue 3 5 30 40 deciduous_tree 33 5 60 40 #1 left_of #2

The style; the kind and the colours of the background; of each object its name, its colour where it is tinted, and the edges left,
top, right and bottom of its box in pixels of 64; then which of two objects stands how to which. Objects come in reading order along
a slanted line, so that a picture has one text only, and each pair is related once, as BACON (arXiv:2407.03314) asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from photopic.data.emoji_world import TRAINING_STYLES
from photopic.data.renderings import classes
from photopic.data.scenes import COLOURS, NUMBER_WORDS, RELATIONS, TEXTURES, Scene

SIDE = 64  # pixels that coordinates count
KINDS = ("flat", "gradient", *TEXTURES)
SLANT = 1.5  # how much a pixel down counts against one to the right, where objects are put in order
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
PLAIN = ("a", "and", "on", "to", "background", *NUMBER_WORDS.values())  # what a plain caption says besides


def word(phrase: str) -> str:
    """A phrase as one word of the vocabulary.

    Example:
        >>> word("left of")
        'left_of'
    """
    return phrase.replace(" ", "_")


def vocabulary() -> tuple[str, ...]:
    """Every word, in the order of the captioner's tokens.

    Example:
        >>> vocabulary()[:3]
        ('<pad>', '<start>', '<end>')
    """
    coordinates = tuple(str(pixel) for pixel in range(SIDE + 1))
    indices = tuple(f"#{number}" for number in range(1, 5))
    relations = tuple(map(word, RELATIONS))
    shown = (*SPECIAL, *TRAINING_STYLES, *KINDS, *COLOURS, *coordinates, *indices, *relations, *PLAIN)
    return (*shown, *(name for name in map(word, classes()) if name not in shown))


def in_reading_order(boxes: np.ndarray) -> list[int]:
    """The numbers of boxes (objects, 4) from the top left to the bottom right.

    Example:
        >>> in_reading_order(np.array([[34, 2, 60, 30], [2, 2, 30, 30]]))
        [1, 0]
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (objects, 2): x, y
    return [int(index) for index in np.argsort(centres @ (1.0, SLANT), kind="stable")]


def related(scene: Scene, order: Sequence[int]) -> list[tuple[int, str, int]]:
    """One relation for each pair that has any, by places in the order."""
    place = {index: number for number, index in enumerate(order)}
    found = [(place[first], relation, place[second]) for first, relation, second in scene.relations]
    return sorted((each for each in found if each[0] < each[2]), key=lambda each: (each[0], each[2]))


def write_scene(scene: Scene) -> list[str]:
    """The words of a scene of one style whose objects are all in sight.

    Example:
        >>> from photopic.data.scenes import Background, Placement, compose
        >>> pair = [Placement("owl", "noto", (0.25, 0.5), 0.4), Placement("bear", "noto", (0.75, 0.5), 0.4)]
        >>> " ".join(write_scene(compose(pair, Background("red"))))
        'noto flat red owl 7 20 25 44 bear 36 21 60 43 #1 left_of #2'
    """
    order = in_reading_order(scene.boxes)
    words = [scene.placements[0].style, scene.background.kind, scene.background.colour]
    words += [scene.background.second] if scene.background.second else []
    for index in order:
        item = scene.placements[index]
        words += [word(item.concept), *([item.tint] if item.tint else [])]
        words += [str(int(edge)) for edge in scene.boxes[index] * SIDE / len(scene.image)]
    for first, relation, second in related(scene, order):
        words += [f"#{first + 1}", word(relation), f"#{second + 1}"]
    return words
