"""Which of two subjects are in a picture, each in its half, as the oracle sees it.

A subject counts as there if what lies in its half is at least as like it as a threshold, which is fitted on real scenes before any
picture is looked at: the two subjects side by side, against their class nouns side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8

from photopic.cli.demo_teach import DemoConfig, Pictures
from photopic.data.emoji_world import HELD_OUT_STYLE, concept
from photopic.data.layout import Box
from photopic.data.scenes import COLOURS, Background, Placement, compose
from photopic.metrics.oracle import Oracle
from photopic.metrics.oracle_scores import window
from photopic.models.preservation import KNOWN_STYLES

REAL = 24  # real scenes of each of the two kinds


def judge(
    pictures: Mapping[str, Pictures],
    configs: Sequence[DemoConfig],
    references: Sequence[UInt8[np.ndarray, "m h w 3"]],
    boxes: Sequence[Box],
) -> dict[str, Any]:
    """How often each subject is there, and how like it what stands in its place is.

    Args:
        pictures: kind -> pictures that should show all subjects.
        configs: The subjects, from left to right.
        references: Pictures of each subject.
        boxes: Where each should be.

    Returns:
        For each kind ``both`` and ``each``, numbers of pictures, and ``likeness``, the mean of the less like of the two;
        the thresholds, and the share of the real scenes that they tell apart.
    """
    oracle = Oracle.load()
    wanted = [F.normalize(oracle.score(each).embedding.mean(0), dim=0) for each in references]

    def values(images: Pictures) -> Float[np.ndarray, "n subjects"]:
        scores = oracle.score(images)
        embedding, amount = window(scores.cells, scores.foreground)  # (n, 8, 8, 128), (n, 8, 8)
        maps = torch.stack([embedding @ each * amount for each in wanted], 1)  # (n, subjects, 8, 8)
        half = maps.shape[-1] // 2
        return torch.stack([maps[:, 0, :, :half].amax((1, 2)), maps[:, 1, :, half:].amax((1, 2))], 1).numpy()

    there = values(_real([each.subject for each in configs], (HELD_OUT_STYLE,), boxes))
    absent = values(_real([each.noun for each in configs], KNOWN_STYLES, boxes))
    fitted = [threshold(there[:, index], absent[:, index]) for index in range(len(configs))]
    cuts = np.array([cut for cut, _ in fitted])
    kinds = {}
    for kind, images in pictures.items():
        found = values(images)
        seen: Bool[np.ndarray, "n subjects"] = found >= cuts
        kinds[kind] = {
            "n": len(images),
            "both": int(seen.all(1).sum()),
            "each": [int(count) for count in seen.sum(0)],
            "likeness": round(float(found.min(1).mean()), 4),
        }
    return {"kinds": kinds, "thresholds": [float(cut) for cut in cuts], "accuracy": [right for _, right in fitted]}


def threshold(there: Float[np.ndarray, "n"], absent: Float[np.ndarray, "m"]) -> tuple[float, float]:
    """The value that tells two samples apart best, and the share of both, weighed alike, that it tells right.

    Example:
        >>> threshold(np.array([0.75, 0.9]), np.array([0.25, 0.5]))
        (0.625, 1.0)
    """
    values = np.unique(np.concatenate([there, absent]))
    cuts = (values[:-1] + values[1:]) / 2 if len(values) > 1 else values
    right = [float((there >= cut).mean() + (absent < cut).mean()) / 2 for cut in cuts]
    best = int(np.argmax(right))
    return float(cuts[best]), right[best]


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
