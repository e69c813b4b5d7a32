"""How well one-pixel skeletons agree: the score of the Pixel SkelNetOn challenge, and more forgiving ones beside it.

Challenge: *SkelNetOn 2019: Dataset and Challenge on Deep Learning for Geometric Shape Understanding* (arXiv:1903.09233). The score
is the mean over pictures of each one's F1 over exact pixels (macro); pooled over pixels it would be another number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from photopic.data.skeletons import EIGHT, distances, neighbours

Masks = Bool[np.ndarray, "n height width"]


def skeleton_f1(predicted: Masks, truth: Masks, radius: int = 0) -> Float[np.ndarray, " n"]:
    """F1 of each picture; their mean is the challenge's score. A picture without a right pixel has 0.

    Args:
        predicted: Skeletons.
        truth: Skeletons, of the same pictures.
        radius: Pixels that a right one may be off by, along rows, columns and diagonals; 0 for the challenge's own.

    Example:
        >>> line, moved = np.eye(5, dtype=bool)[None], np.eye(5, k=1, dtype=bool)[None]
        >>> skeleton_f1(line, moved).tolist(), skeleton_f1(line, moved, 1).tolist()
        ([0.0], [1.0])
    """
    near = [np.stack([_wider(each, radius) for each in side]) for side in (predicted, truth)]
    precision = _share((predicted & near[1]).sum((1, 2)), predicted.sum((1, 2)))
    recall = _share((truth & near[0]).sum((1, 2)), truth.sum((1, 2)))
    return _share(2 * precision * recall, precision + recall)


def balanced_accuracy(predicted: Masks, truth: Masks) -> Float[np.ndarray, " n"]:
    """Mean of the shares of skeleton pixels and of other pixels that are right, of each picture.

    Example:
        >>> balanced_accuracy(np.zeros((1, 2, 2), bool), np.eye(2, dtype=bool)[None]).tolist()
        [0.5]
    """
    rates = [_share((predicted & truth).sum((1, 2)), truth.sum((1, 2)))]
    rates += [_share((~predicted & ~truth).sum((1, 2)), (~truth).sum((1, 2)))]
    return (rates[0] + rates[1]) / 2


def outline(
    skeleton: Bool[np.ndarray, "height width"], mask: Bool[np.ndarray, "height width"]
) -> Mapping[str, int | float]:
    """The shape of a skeleton in numbers: pixels, components, ends, junctions, loops, and the share of the shape it rebuilds.

    Args:
        skeleton: One pixel wide.
        mask: The shape it is of; the discs of its distances to the border, drawn around the skeleton, rebuild it.

    Example:
        >>> outline(np.eye(5, dtype=bool), np.eye(5, dtype=bool))["ends"]
        2
    """
    count = neighbours(skeleton)
    components = ndimage.label(skeleton, EIGHT)[1]
    holes = ndimage.label(np.pad(~skeleton, 1, constant_values=True))[1] - 1  # of four neighbours, less the outside
    return {
        "pixels": int(skeleton.sum()), "components": int(components), "ends": int((count == 1).sum()),
        "junctions": int(ndimage.label(count > 2, EIGHT)[1]), "loops": int(holes),
        "rebuilt": round(float(_rebuilt(skeleton, mask) / max(mask.sum(), 1)), 6),
    }  # fmt: skip


def _rebuilt(skeleton: Bool[np.ndarray, "height width"], mask: Bool[np.ndarray, "height width"]) -> int:
    """Pixels of the shape within some skeleton pixel's distance to the border."""
    places, radii = np.argwhere(skeleton), distances(mask)[skeleton]
    found = np.zeros_like(mask)
    for (row, column), radius in zip(places.tolist(), radii.tolist(), strict=True):
        reach = int(np.ceil(radius))
        top, left = max(row - reach, 0), max(column - reach, 0)
        part = found[top : row + reach + 1, left : column + reach + 1]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        part |= (rows + top - row) ** 2 + (columns + left - column) ** 2 < radius**2
    return int((found & mask).sum())


def _wider(mask: Bool[np.ndarray, "height width"], radius: int) -> Bool[np.ndarray, "height width"]:
    return mask if radius == 0 else ndimage.binary_dilation(mask, EIGHT, radius)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their quotient, 0 where nothing is right."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=part > 0)
