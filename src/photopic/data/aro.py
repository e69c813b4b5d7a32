"""Pictures with one true caption and others of the same words: the attribution, relation and order of ARO, made from scenes.

The false captions of attribution and relation are written by the grammar of the scene's own caption from placements that
exchanged their colours or their concepts, so they are wrong by construction, and each has the words of the true one.

Source: ARO (arXiv:2210.01936), which takes boxes of Visual Genome and captions of COCO and Flickr30k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from photopic.data import renderings
from photopic.data.caption_swaps import reorderings
from photopic.data.scenes import Placement, Scene, SceneOptions, caption_of, sample_scene

Part = Literal["attribution", "relation", "order"]
PARTS: tuple[Part, ...] = ("attribution", "relation", "order")
SEED = 67  # before the caller's, so that no training draws the same scenes


@dataclass(frozen=True)
class AroCase:
    """One picture and its captions.

    Attributes:
        image: RGB.
        captions: The true one, then the false ones.
        kinds: Of each false caption what it is: the relation it turns round, or what was shuffled.
    """

    image: UInt8[np.ndarray, "size size 3"]
    captions: tuple[str, ...]
    kinds: tuple[str, ...]


def chance(part: Part) -> float:
    """The share that is right by guessing: 1/2, of five orders 1/5.

    Example:
        >>> chance("order")
        0.2
    """
    return 0.2 if part == "order" else 0.5


def aro_case(part: Part, seed: int | Sequence[int], *, size: int = 64) -> AroCase:
    """Draw one case; a pure function of its arguments.

    Args:
        part: ``attribution``: two things exchange their colours; ``relation``: they exchange their places in the sentence;
            ``order``: four shuffles of the sentence.
        seed: Of the scene and the shuffles.
        size: Side of the picture in pixels.

    Example:
        >>> aro_case("relation", 2).captions[1]
        'a croissant above a man’s shoe on a dotted blue background'
    """
    options = SceneOptions(
        concepts=renderings.classes(),
        objects=(0.0, 1.0, 0.0, 0.0),
        size=size,
        style_named=0.0,
        tinted=1.0 if part == "attribution" else 0.0,
    )
    attempt = 0
    while True:
        drawn = (SEED, PARTS.index(part), *np.atleast_1d(seed).tolist(), attempt)
        scene = sample_scene(options, drawn)
        false = _false(part, scene, np.random.default_rng((*drawn, 1)))
        if false is not None:
            return AroCase(scene.image, (scene.caption, *false.values()), tuple(false))
        attempt += 1  # not clearly apart, of one colour, or a name that is a colour


def _false(part: Part, scene: Scene, rng: np.random.Generator) -> dict[str, str] | None:
    """The false captions by their kinds; None where the scene has none that is surely false."""
    first, second = scene.placements
    if part == "order":
        return reorderings(scene.caption, rng)
    if not scene.relations or first.concept == second.concept:
        return None
    if part == "attribution":
        if first.tint is None or second.tint is None or first.tint == second.tint:
            return None
        return {"colour": _said(scene, replace(first, tint=second.tint), replace(second, tint=first.tint))}
    return {scene.relations[0][1]: _said(scene, second, first)}


def _said(scene: Scene, *placements: Placement) -> str:
    """The caption with other things in the same places of the sentence."""
    return caption_of(placements, scene.background, scene.relations)
