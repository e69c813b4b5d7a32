"""Skeletons of silhouettes: thinning and the medial axis by scikit-image, and pruning of short branches.

A skeleton is one pixel wide and connected where its shape is, counted over all eight neighbours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

EIGHT = np.ones((3, 3), bool)  # a pixel and its neighbours
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # rows and columns to a neighbour
PRUNING = 1.2  # a branch stays that is as long as this many radii of the shape where it begins

Mask = Bool[np.ndarray, "height width"]
Distances = Float[np.ndarray, "height width"]


def thin(mask: Mask) -> Mask:
    """The skeleton by thinning (Zhang and Suen 1984).

    Args:
        mask: True inside the shape, of any number of components; what lies beyond the picture is outside.

    Example:
        >>> thin(np.ones((3, 5), bool)).astype(int).tolist()
        [[0, 0, 0, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    """
    from skimage.morphology import skeletonize

    found: Mask = skeletonize(np.pad(mask, 1))[1:-1, 1:-1]
    return found


def medial(mask: Mask) -> Mask:
    """The medial axis: centres of discs that touch the border in two places or more; its ties are broken alike in every call.

    Args:
        mask: As of ``thin``.

    Example:
        >>> int(medial(np.ones((5, 17), bool)).sum())
        21
    """
    from skimage.morphology import medial_axis

    # padded: it takes what lies beyond the picture for inside
    found: Mask = np.asarray(medial_axis(np.pad(mask, 1), rng=0))[1:-1, 1:-1]
    return found


def distances(mask: Mask) -> Distances:
    """From every pixel inside to the nearest one outside, in pixels; 0 outside, and what lies beyond the picture is outside.

    Example:
        >>> distances(np.ones((3, 3), bool))[1].tolist()
        [1.0, 2.0, 1.0]
    """
    found: Distances = np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1]
    return found


def neighbours(skeleton: Mask) -> Int[np.ndarray, "height width"]:
    """Of each pixel of a skeleton, how many of its eight neighbours are of it too; 0 elsewhere.

    Example:
        >>> neighbours(np.ones((1, 3), bool)).tolist()
        [[1, 2, 1]]
    """
    around = ndimage.convolve(skeleton.astype(int), EIGHT.astype(int), mode="constant") - 1
    found: Int[np.ndarray, "height width"] = np.where(skeleton, around, 0)
    return found


def prune(skeleton: Mask, mask: Mask, ratio: float = PRUNING) -> Mask:
    """Without the branches that noise of the border grows: those shorter than a share of the shape's radius where they begin.

    The shortest branch of every junction goes first, then branches are counted again, so that the long axis of a shape stays.

    Args:
        skeleton: One pixel wide.
        mask: The shape it is of.
        ratio: A branch goes that is shorter than so many radii; 0 leaves the skeleton as it is.

    Example:
        >>> shape = np.zeros((12, 21), bool)
        >>> shape[4:11, 1:20] = shape[2:4, 10] = True
        >>> before, after = thin(shape), prune(thin(shape), shape, ratio=2.0)
        >>> int(neighbours(before).max()), int(neighbours(after).max())
        (4, 2)
    """
    radii, skeleton = distances(mask), skeleton.copy()
    while short := _short_branches(skeleton, radii, ratio):
        for branch in short:
            skeleton[tuple(np.transpose(branch))] = False
        skeleton = thin(skeleton)  # what is left of a junction may be two pixels wide
    return skeleton


def branches(skeleton: Mask) -> list[tuple[list[tuple[int, int]], tuple[int, int]]]:
    """The pixels of each branch from its end on, and the pixel of the junction it begins at, which is not of it.

    Example:
        >>> plus = np.zeros((5, 5), bool)
        >>> plus[2] = plus[:, 2] = True
        >>> branches(plus)[0]
        ([(0, 2)], (1, 2))
    """
    count = np.pad(neighbours(skeleton), 1)  # so that the neighbours of every pixel exist
    found = []
    for row, column in np.argwhere(count == 1).tolist():
        path, place = [], (row, column)
        while count[place] in (1, 2):
            path.append(place)
            around = [(place[0] + down, place[1] + right) for down, right in AROUND]
            onward = [each for each in around if count[each] and each not in path[-2:]]
            if not onward:  # a line without a junction is no branch
                break
            place = onward[0]
        else:
            found.append(([(y - 1, x - 1) for y, x in path], (place[0] - 1, place[1] - 1)))
    return found


def length(path: list[tuple[int, int]]) -> float:
    """Of a branch in pixels, a diagonal step being the root of two; the step to its junction is not counted.

    Example:
        >>> length([(0, 0), (0, 1), (1, 2)])
        2.414213562373095
    """
    return float(np.sqrt((np.diff(np.array(path), axis=0) ** 2).sum(1)).sum())


def _short_branches(skeleton: Mask, radii: Distances, ratio: float) -> list[list[tuple[int, int]]]:
    """The shortest branch of each junction, where it is too short to stay."""
    junctions, _ = ndimage.label(neighbours(skeleton) > 2, EIGHT)
    shortest: dict[int, tuple[float, list[tuple[int, int]]]] = {}
    for path, start in branches(skeleton):
        found = length(path) + 1
        if found < ratio * radii[start] and found < shortest.get(int(junctions[start]), (np.inf,))[0]:
            shortest[int(junctions[start])] = found, path
    return [path for _, path in shortest.values()]
