"""Which subjects are in a picture of several, where, and whose looks are in whose place; judged by the oracle.

A subject's map is, for each cell, the cosine of what lies in its 3x3 window to real pictures of the subject, as in
``Oracle.subject_presence``. The threshold of *present* is fitted for each subject on real composed scenes, before any picture is
drawn: scenes that hold the subject beside another one, against scenes that hold its class noun instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from subjects import Bench

from photopic.data import scenes, splits
from photopic.data.emoji_world import HELD_OUT_STYLE, concept
from photopic.metrics.oracle_scores import Scores, window
from photopic.models.preservation import KNOWN_STYLES
from race.plan import Box, boxes

APART = 2  # cells between the peaks of two subjects that count as two
MARGIN = 0.09  # of the side: nearer to a box's edge a 3x3 window sees the neighbour's box


@dataclass(frozen=True)
class Judged:
    """What is in n pictures of k subjects.

    Attributes:
        present: Every subject is there, each in its own place, (n,).
        subjects: Each subject is there, (n, k).
        leaked: Share of the ordered pairs (A, B) in which A is found in B's box, (n,).
        obeyed: Share of the subjects that are there with their peak in their own box, (n,).
        similarity: Mean over the subjects of the highest value of their maps, (n,).
    """

    present: np.ndarray
    subjects: np.ndarray
    leaked: np.ndarray
    obeyed: np.ndarray
    similarity: np.ndarray


def subject_maps(scores: Scores, wanted: np.ndarray) -> np.ndarray:
    """Cosine of each 3x3 window to a subject, times how nearly the window is filled, (n, 8, 8).

    Args:
        scores: Of n pictures.
        wanted: Oracle embeddings of real pictures of the subject, (m, 128).
    """
    direction = F.normalize(torch.from_numpy(wanted).mean(0), dim=0)
    embedding, amount = window(scores.cells, scores.foreground)
    return (embedding @ direction * amount).numpy()


def threshold(positive: Sequence[float], negative: Sequence[float]) -> tuple[float, float, float]:
    """The value that tells two samples apart best, with its rates of hits and of false alarms.

    The balanced accuracy is maximised; of several maxima the middle is taken.

    Example:
        >>> threshold([0.8, 0.9], [0.2, 0.4])
        (0.6, 1.0, 0.0)
    """
    values = sorted({*positive, *negative})
    cuts = [(low + high) / 2 for low, high in itertools.pairwise(values)] or values
    above, below = np.asarray(positive), np.asarray(negative)
    accuracy = [float((above >= cut).mean() - (below >= cut).mean()) for cut in cuts]
    best = [cut for cut, each in zip(cuts, accuracy, strict=True) if each == max(accuracy)]
    middle = best[len(best) // 2] if len(best) > 2 else (best[0] + best[-1]) / 2
    middle = round(middle, 6)
    return middle, float((above >= middle).mean()), float((below >= middle).mean())


def judge(maps: np.ndarray, thresholds: Sequence[float], places: Sequence[Box]) -> Judged:
    """Presence, leakage and layout from maps.

    Args:
        maps: One a subject and picture, (k, n, 8, 8).
        thresholds: Of *present*, one a subject.
        places: Box of each subject.
    """
    count, n = maps.shape[:2]
    flat = maps.reshape(count, n, -1)
    top, peak = flat.max(2), flat.argmax(2)  # (k, n)
    there = top >= np.asarray(thresholds)[:, None]
    row, column = peak // maps.shape[3], peak % maps.shape[3]
    own_place = np.ones(n, bool)
    leaked, pairs = np.zeros(n), 0
    obeyed = np.zeros(n)
    for a in range(count):
        obeyed += there[a] & inside(places[a], 0.0, maps.shape[3])[row[a], column[a]]
        for b in range(count):
            if a != b:
                distance = np.maximum(abs(row[a] - row[b]), abs(column[a] - column[b]))
                own_place &= distance >= APART
                leaked += maps[a][:, inside(places[b], MARGIN, maps.shape[3])].max(1) >= thresholds[a]
                pairs += 1
    present = there.all(0) & own_place
    return Judged(present, there.T, leaked / max(1, pairs), obeyed / count, top.mean(0))


def inside(box: Box, margin: float, cells: int = 8) -> np.ndarray:
    """Cells whose centre lies in a box shrunk by a margin, at least the one nearest to its centre, (cells, cells)."""
    centres = (np.arange(cells) + 0.5) / cells
    axes = []
    for low, high in ((box[1], box[3]), (box[0], box[2])):  # rows, then columns
        found = (centres >= low + margin) & (centres <= high - margin)
        if not found.any():
            found[abs(centres - (low + high) / 2).argmin()] = True
        axes.append(found)
    return np.outer(*axes)


def real_scenes(names: Sequence[str], styles: Sequence[Sequence[str]], count: int, seed: int) -> np.ndarray:
    """Real pictures with each concept in its box, slightly moved and resized, (count, 64, 64, 3)."""
    rng = np.random.default_rng((seed, *" ".join(names).encode()))
    images = []
    for number in range(count):
        placed = []
        for name, drawn_in, (left, top, right, bottom) in zip(names, styles, boxes(len(names)), strict=True):
            side = min(right - left, bottom - top) * rng.uniform(0.85, 1.0)
            centre = ((left + right) / 2 + rng.uniform(-0.02, 0.02), (top + bottom) / 2 + rng.uniform(-0.1, 0.1))
            known = [style for style in drawn_in if style in concept(name).styles]
            placed.append(scenes.Placement(name, str(rng.choice(known)), centre, side))
        background = scenes.Background(tuple(scenes.COLOURS)[number % 12])
        images.append(scenes.compose(placed, background).image)
    return np.stack(images)


@dataclass(frozen=True)
class Calibrated:
    """The threshold of a subject with its rates on the scenes it was fitted to."""

    threshold: float
    hits: float
    false_alarms: float


def calibrate(bench: Bench, name: str, others: Sequence[str], count: int) -> Calibrated:
    """Fit the threshold of *present* on real scenes.

    Positive: the subject beside another subject, both in the held-out style. Negative: its class noun beside that subject, and
    beside that subject's class noun, in the styles the base model draws.

    Args:
        bench: With the oracle.
        name: The subject.
        others: Subjects to stand beside it.
        count: Scenes of each of the three kinds.
    """
    mine, known = (HELD_OUT_STYLE,), KNOWN_STYLES
    noun, each = splits.SUBJECTS[name], -(-count // len(others))
    found: dict[bool, list[float]] = {True: [], False: []}
    for number, other in enumerate(others):
        for is_subject, first, second, styles in (
            (True, name, other, (mine, mine)),
            (False, noun, other, (known, mine)),
            (False, noun, splits.SUBJECTS[other], (known, known)),
        ):
            images = real_scenes((first, second), styles, each, seed=number)
            maps = subject_maps(bench.oracle.score(images), bench.truth(name))
            found[is_subject] += [float(value) for value in maps.max((1, 2))]
    return Calibrated(*threshold(found[True], found[False]))
