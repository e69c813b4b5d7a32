"""How well a layout is obeyed: where the attention of a subject's words lies, and where the subject itself is in a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.layout import Layout
from photopic.metrics.oracle import Oracle

CONTRAST = 40  # of 255 in any channel: what stands out from the background; its noise is below 20 on the bundled model
SPECK = 0.002  # share of the picture below which a patch is no object
TRIMMED = 0.01  # share of a subject's pixels dropped on each side of its box, so that a speck does not stretch it


def attention_mass(
    maps: Float[Tensor, "regions h w"], layout: Layout, *, by_area: bool = False
) -> Float[np.ndarray, " regions"]:
    """The share of each subject's attention that lies in its region.

    Args:
        maps: One map a region, in the layout's order: attention of the subject's words, as ``capture_attention`` collects it.
        layout: The regions.
        by_area: Count a cell by the share of it that the region covers. Otherwise the cells count that the layout gives to the
            region at this resolution, which is fairer to a region smaller than a cell.

    Returns:
        0 to 1 each; nan where the words get no attention at all.

    Raises:
        DataError: If there is not one map a region.

    Example:
        >>> from photopic.data.layout import Region
        >>> half = Layout((Region("cat", (0.0, 0.0, 0.5, 1.0)),))
        >>> import torch
        >>> attention_mass(torch.tensor([[[3.0, 1.0]]]), half)
        array([0.75])
    """
    count, height, width = maps.shape
    if count != len(layout.regions):
        raise DataError(f"attention mass: expected one map for each of {len(layout.regions)} regions, found {count}")
    attention = maps.double().numpy()
    covered = np.stack([region.coverage(height, width) for region in layout.regions])
    weights = covered if by_area else layout.cells(height, width)
    with np.errstate(invalid="ignore"):
        return (attention * weights).sum((1, 2)) / attention.sum((1, 2))


def subject_boxes(
    images: UInt8[np.ndarray, "n height width 3"], names: Sequence[str], oracle: Oracle
) -> Float[np.ndarray, "n names 4"]:
    """Where each of several concepts is in pictures with a flat background.

    What stands out from the background and hangs together is the concept's that the oracle sees there; a patch where it sees two
    by a quarter or more each, as of objects that touch, is shared out by pixels.

    Args:
        images: RGB, 0 to 255.
        names: Concepts the oracle knows, as drawn.
        oracle: The judge.

    Returns:
        (left, top, right, bottom) as fractions of the picture; nan where the oracle does not see the concept at all.
    """
    height, width = images.shape[1:3]
    seen = oracle.presence_maps(images, names)  # (n, names, 8, 8)
    present = seen.amax((2, 3)).numpy() > 0.5
    objects = foreground(images)
    nearest = F.interpolate(seen, (height, width), mode="bilinear").argmax(1).numpy()  # (n, height, width)
    boxes = np.full((len(images), len(names), 4), np.nan)
    owners = [_owned(mask, near) for mask, near in zip(objects, nearest, strict=True)]
    for image, index in np.argwhere(present):
        mask = owners[image] == index
        if mask.any():
            boxes[image, index] = _box(mask)
    return boxes


def foreground(images: UInt8[np.ndarray, "n height width 3"]) -> Bool[np.ndarray, "n height width"]:
    """The pixels that stand out from a flat background, whose colour is the median of the picture's border."""
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]  # (n, side, 3) each
    background = np.median(np.concatenate(edges, 1), axis=1)  # (n, 3)
    return np.abs(images - background[:, None, None]).max(-1) > CONTRAST


def box_iou(boxes: Float[np.ndarray, "*shape 4"], others: Float[np.ndarray, "*shape 4"]) -> Float[np.ndarray, "*shape"]:
    """Intersection over union of boxes (left, top, right, bottom); 0 where one of them is nan, which is an absent object.

    Example:
        >>> box_iou(np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 0.5, 0.5]]))
        array([0.25])
    """
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    shared = sides.clip(0).prod(-1)
    union = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (others[..., 2:] - others[..., :2]).prod(-1) - shared
    return np.nan_to_num(shared / np.where(union == 0, 1.0, union))


def _owned(
    mask: Bool[np.ndarray, "height width"], nearest: Int[np.ndarray, "height width"]
) -> Int[np.ndarray, "height width"]:
    """Number of the concept each pixel belongs to, -1 for none."""
    owners = np.where(mask, nearest, -1)
    for patch in patches(mask):
        counts = np.bincount(nearest[patch])
        if counts.sum() - counts.max() < counts.sum() / 4:
            owners[patch] = counts.argmax() if counts.sum() >= SPECK * mask.size else -1
    return owners


def patches(mask: Bool[np.ndarray, "height width"]) -> list[Bool[np.ndarray, "height width"]]:
    """The parts of a mask that hang together along sides or corners, one mask each.

    Example:
        >>> len(patches(np.array([[True, False, True], [True, False, False]])))
        2
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:  # every pixel takes the largest number beside it until nothing changes
        padded = np.pad(labels, 1)
        around = [padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
        spread = np.where(mask, np.max(around, 0), 0)
        if (spread == labels).all():
            return [labels == label for label in np.unique(labels[mask])]
        labels = spread


def _box(mask: Bool[np.ndarray, "height width"]) -> tuple[float, float, float, float]:
    """The smallest box around a mask but for the outermost ``TRIMMED`` of its pixels on each side."""
    edges = []
    for axis in (0, 1):  # columns, then rows
        shares = np.cumsum(mask.sum(axis)) / mask.sum()
        first, last = np.searchsorted(shares, TRIMMED, "right"), np.searchsorted(shares, 1 - TRIMMED, "left")
        edges.append((float(first) / mask.shape[1 - axis], float(last + 1) / mask.shape[1 - axis]))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom
