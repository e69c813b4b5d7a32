"""Which of several subjects are in a picture, and where, told from what each could be mistaken for, as the oracle sees it.

Every place of a picture is given to the nearest of a few candidates: the subjects asked for, and others such as their class nouns.
A subject is there if the place most like it is given to it. No threshold is fitted, so that a blurred drawing of the right thing
counts and a sharp drawing of its class does not. It is a choice among candidates: a place that shows something else
altogether is given to the least unlike of them, so the rate on pictures without the subjects belongs beside every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int

from photopic.core.errors import DataError
from photopic.metrics.oracle_scores import Scores, window

FILLED = 0.5  # of a window: with less of an object in it, it is given to nobody
NOBODY = -1


@dataclass(frozen=True, eq=False)
class Recognised:
    """What was found of k subjects in n pictures of ``cells`` x ``cells`` places.

    Attributes:
        maps: How like each subject each place is: cosine times how nearly the place is filled, up to 1.
        taken: Index of the candidate each place is given to, subjects first, then the others; -1 for nobody.
        peaks: (row, column) of the place most like each subject.
        there: Whether that place is given to the subject.
    """

    maps: Float[np.ndarray, "k n cells cells"]
    taken: Int[np.ndarray, "n cells cells"]
    peaks: Int[np.ndarray, "k n 2"]
    there: Bool[np.ndarray, "k n"]

    def all_apart(self, cells: int = 2) -> Bool[np.ndarray, "n"]:
        """Whether every subject is there, with at least ``cells`` rows or columns between the peaks of any two."""
        found = np.asarray(self.there.all(0))
        for a, first in enumerate(self.peaks):
            for second in self.peaks[a + 1 :]:
                found &= abs(first - second).max(1) >= cells
        return found


def recognise(
    scores: Scores,
    subjects: Sequence[Float[np.ndarray, "_ width"]],
    others: Sequence[Float[np.ndarray, "_ width"]],
) -> Recognised:
    """Find subjects in pictures.

    Args:
        scores: Of n pictures, from ``Oracle.score``.
        subjects: Oracle embeddings of pictures of each subject.
        others: The same of what they could be mistaken for, such as their class nouns.

    Raises:
        DataError: If there is no subject or one without pictures.

    Example:
        >>> from photopic.metrics.oracle import Oracle
        >>> oracle = Oracle.load()  # doctest: +SKIP
        >>> of = lambda pictures: oracle.score(pictures).embedding.numpy()  # doctest: +SKIP
        >>> recognise(oracle.score(drawn), [of(pandas)], [of(bears)]).there  # doctest: +SKIP
    """
    if not subjects or any(len(each) == 0 for each in (*subjects, *others)):
        raise DataError(
            "recognise: expected at least one subject and pictures of every subject and every other; found none"
        )
    means = torch.from_numpy(np.stack([each.mean(0) for each in (*subjects, *others)])).float()
    embedding, amount = window(scores.cells, scores.foreground)  # (n, cells, cells, width), (n, cells, cells)
    cosines = embedding @ F.normalize(means, dim=1).T  # (n, cells, cells, candidates)
    taken = torch.where(amount >= FILLED, cosines.argmax(-1), NOBODY).numpy()
    maps = (cosines[..., : len(subjects)] * amount[..., None]).permute(3, 0, 1, 2).numpy()
    peaks = np.stack(np.unravel_index(maps.reshape(*maps.shape[:2], -1).argmax(2), maps.shape[2:]), -1)  # (k, n, 2)
    pictures = np.arange(len(taken))
    there = np.stack([taken[pictures, *peaks[k].T] == k for k in range(len(subjects))])
    return Recognised(maps, taken, peaks, there)
