"""Which subjects are in a picture of several, where, and whose looks are in whose place; judged by the oracle.

A subject is there if the place most like it is taken for it, not for its class noun or for another of the group
(``photopic.metrics.recognition``). What real scenes reach, as they are and as the model's autoencoder shows them, and scenes of the
class nouns instead, stands beside every claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.harness.subjects import JUDGED_ON, JudgedModel
from benchmarks.tune.race.plan import Box, boxes
from photopic.data import scenes, splits
from photopic.data.emoji_world import HELD_OUT_STYLE, concept
from photopic.learning.subject.preservation import KNOWN_STYLES
from photopic.metrics.oracle_scores import Scores
from photopic.metrics.recognition import Recognised, recognise
from photopic.models.text_to_image.autoencoder import encode_images, finished_pictures
from photopic.models.text_to_image.handle import TextToImage

MARGIN = 0.09  # of the side: nearer to a box's edge a 3x3 window sees the neighbour's box
SUBJECT_STYLES = (HELD_OUT_STYLE,)


@dataclass(frozen=True)
class Judged:
    """What is in n pictures of k subjects.

    Attributes:
        present: Every subject is there, each in its own place, (n,).
        subjects: Each subject is there, (n, k).
        leaked: Share of the ordered pairs (A, B) in which a place in B's box is taken for A, (n,).
        obeyed: Share of the subjects that are there with their peak in their own box, (n,).
        similarity: Mean over the subjects of the highest value of their maps, (n,).
    """

    present: np.ndarray
    subjects: np.ndarray
    leaked: np.ndarray
    obeyed: np.ndarray
    similarity: np.ndarray


def found(judged: JudgedModel, scores: Scores, group: Sequence[str]) -> Recognised:
    """Where the subjects of a group are, told from each other and from their class nouns."""
    return recognise(
        scores, [judged.truth(name) for name in group], [noun_truth(judged, splits.SUBJECTS[name]) for name in group]
    )


def noun_truth(judged: JudgedModel, noun: str) -> np.ndarray:
    """Oracle embeddings of real pictures of a class noun, on the backgrounds that ``JudgedModel.truth`` uses, (6, 128)."""
    known = [style for style in KNOWN_STYLES if style in concept(noun).styles]
    images = [
        scenes.compose(
            [scenes.Placement(noun, known[number % len(known)], (0.5, 0.5), 0.77)], scenes.Background(colour)
        ).image
        for number, colour in enumerate(JUDGED_ON)
    ]
    return judged.oracle.score(np.stack(images)).embedding.numpy()


def judge(seen: Recognised, places: Sequence[Box]) -> Judged:
    """Presence, leakage and layout from what was recognised.

    Args:
        seen: Of k subjects.
        places: Box of each subject.
    """
    count, n = seen.there.shape
    cells = seen.taken.shape[1]
    leaked, pairs = np.zeros(n), 0
    obeyed = np.zeros(n)
    for a in range(count):
        obeyed += seen.there[a] & inside(places[a], 0.0, cells)[tuple(seen.peaks[a].T)]
        for b in range(count):
            if a != b:
                leaked += (seen.taken[:, inside(places[b], MARGIN, cells)] == a).any(1)
                pairs += 1
    similarity = seen.maps.reshape(count, n, -1).max(2).mean(0)
    return Judged(seen.all_apart(), seen.there.T, leaked / max(1, pairs), obeyed / count, similarity)


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


def autoencoded(model: TextToImage, images: np.ndarray) -> np.ndarray:
    """Pictures as the model's autoencoder shows them: the best that any denoising could reach, (n, h, w, 3) as they came."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    generators = [torch.Generator().manual_seed(0)] * len(images)
    with torch.no_grad():
        shown, _ = finished_pictures(model.pipeline, encode_images(model.pipeline, pixels), generators)
    return (shown * 255).round().astype(np.uint8)
