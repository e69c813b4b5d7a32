"""Which of two subjects are in a picture, each in its half, as the oracle sees it.

A subject counts as there if the judge takes what stands in its half for it rather than for its class noun or the other subject
(``photopic.metrics.recognition``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from photopic.data.emoji_world import HELD_OUT_STYLE, concept
from photopic.data.layout import Box
from photopic.data.scenes import COLOURS, Background, Placement, compose
from photopic.demo.teach import DemoConfig, Pictures
from photopic.learning.subject.preservation import KNOWN_STYLES
from photopic.metrics.oracle import Oracle
from photopic.metrics.recognition import Recognised, recognise

REAL = 24  # real scenes of each of the two kinds


def judge(
    pictures: Mapping[str, Pictures],
    configs: Sequence[DemoConfig],
    references: Sequence[UInt8[np.ndarray, "m h w 3"]],
    boxes: Sequence[Box],
) -> dict[str, Any]:
    """How often each subject is there, and how like it what stands in its place is.

    Args:
        pictures: kind -> pictures that should show both subjects.
        configs: The subjects, from left to right.
        references: Pictures of each subject.
        boxes: Where each should be.

    Returns:
        For each kind ``both`` and ``each``, numbers of pictures, and ``likeness``, the mean of the less like of the two;
        ``real`` and ``nouns``: the shares of real scenes with the two, and with their class nouns, in which both are found.
    """
    oracle = Oracle.load()
    wanted = [oracle.score(each).embedding.numpy() for each in references]
    nouns = [oracle.score(_alone(each.noun)).embedding.numpy() for each in configs]

    def halves(images: Pictures) -> tuple[Bool[np.ndarray, "2 n"], Float[np.ndarray, "2 n"]]:
        return in_halves(recognise(oracle.score(images), wanted, nouns))

    kinds = {}
    for kind, images in pictures.items():
        there, likeness = halves(images)
        kinds[kind] = {
            "n": len(images),
            "both": int(there.all(0).sum()),
            "each": [int(count) for count in there.sum(1)],
            "likeness": round(float(likeness.min(0).mean()), 4),
        }
    ends = {
        "real": _real([each.subject for each in configs], (HELD_OUT_STYLE,), boxes),
        "nouns": _real([each.noun for each in configs], KNOWN_STYLES, boxes),
    }
    return {"kinds": kinds} | {name: float(halves(images)[0].all(0).mean()) for name, images in ends.items()}


def in_halves(seen: Recognised) -> tuple[Bool[np.ndarray, "2 n"], Float[np.ndarray, "2 n"]]:
    """Whether the place of a half that is most like its subject is taken for it, and how like it is; the first is on the left.

    The cells beside the middle are left out: what is seen there holds part of the other half.
    """
    n, middle = seen.taken.shape[0], seen.taken.shape[2] // 2
    there, likeness = [], []
    for index, columns in enumerate((slice(None, middle - 1), slice(middle + 1, None))):
        likely = seen.maps[index][:, :, columns].reshape(n, -1)
        taken = seen.taken[:, :, columns].reshape(n, -1)
        best = likely.argmax(1)
        there.append(taken[np.arange(n), best] == index)
        likeness.append(likely.max(1))
    return np.stack(there), np.stack(likeness)


def _alone(name: str) -> Pictures:
    """Real pictures of a thing the model knows, in the styles it draws."""
    styles = [style for style in KNOWN_STYLES if style in concept(name).styles]
    return np.stack(
        [
            compose([Placement(name, style, (0.5, 0.5), 0.75)], Background(colour)).image
            for style in styles
            for colour in tuple(COLOURS)[:4]
        ]
    )


def _real(names: Sequence[str], styles: Sequence[str], boxes: Sequence[Box]) -> Pictures:
    """Real scenes of things side by side, each about where its box is."""
    rng = np.random.default_rng(len(names))
    images = []
    for number in range(REAL):
        placed = []
        for name, (left, top, right, bottom) in zip(names, boxes, strict=True):
            known = [style for style in styles if style in concept(name).styles]
            centre = ((left + right) / 2 + rng.uniform(-0.02, 0.02), (top + bottom) / 2 + rng.uniform(-0.1, 0.1))
            side = (right - left) * rng.uniform(0.85, 1.0)
            placed.append(Placement(name, str(rng.choice(known)), centre, side))
        images.append(compose(placed, Background(tuple(COLOURS)[number % len(COLOURS)])).image)
    return np.stack(images)
